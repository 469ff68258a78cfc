"""A tiny real study through Snakemake: its files, its runs in MLflow, the second call; and stages killed with -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from ddis.config import Study
from ddis.evaluation.table import COLUMNS
from ddis.provenance import file_digest
from ddis.stages import tune
from ddis.stages.layout import TABLES, figure_names

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "tiny.yaml"
BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}


def snakemake(folder: Path, *options: str, tracking: str = "off") -> str:
    """Output of Snakemake on the tiny study, run in `folder`."""
    command = [str(BIN / "snakemake"), "-s", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    done = subprocess.run(
        [*command, "--configfile", str(TINY), *options],
        env=ENVIRONMENT | {"DDIS_TRACKING": tracking, "XDG_CACHE_HOME": str(folder)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of the finished study, tracked."""
    folder = tmp_path_factory.mktemp("study")
    snakemake(folder, tracking="on")
    return folder


def test_study_writes_its_public_files(finished):
    results = finished / "results" / "tiny"
    table = pd.read_csv(results / "tables" / "errors.csv")
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 7 and set(table["run"]) == {"ddis", "ddis-gn", "fundps", "exact"}
    exact = table[table["run"] == "exact"].iloc[0]
    assert exact["l2_mean"] < 60 and exact["l2_limit"] <= exact["l2_mean"] * 1.1
    assert table["l2_sample"].notna().all() and (table["n_failed"] == 0).all()
    for name in ("tables/errors.md", "tables/errors.tex", "report.html", "config.yaml", "data/poisson/card.yaml"):
        assert (results / name).stat().st_size > 0, name
    assert {path.name for path in (results / "figures").glob("*.png")} == set(figure_names(Study.load(results / "config.yaml")))
    assert not list((results / "work").rglob("*.safetensors"))
    assert yaml.safe_load((results / "config.yaml").read_text())["joint"]["training"]["steps"] == 12
    with h5py.File(results / "samples" / "poisson" / "sparse" / "ddis-gn-10.h5") as file:
        assert file["coefficient"].shape == (3, 4, 16, 16) and file["mask"][...].sum() == 60
        assert file.attrs["pairs"] == 6 and file.attrs["operator"] == "fno" and file.attrs["prior_evaluations"] == 3
    small, large = (set(pd.read_csv(results / "data" / "poisson" / f"pairs-{p}.csv")["index"]) for p in ("10", "100"))
    assert len(small) == 6 and len(large) == 64 and small <= large


def test_report_opens_from_disk_alone(finished):
    html = (finished / "results" / "tiny" / "report.html").read_text()
    assert "data:image/png;base64," in html and 'src="http' not in html and "<script" not in html


def test_docs_are_made_anew_from_the_samples(finished, monkeypatch, capsys):
    """`docs/reproduce.py` gives the bytes that the study itself has, and needs its tuning curves."""
    monkeypatch.chdir(finished)
    monkeypatch.setenv("DDIS_TRACKING", "off")
    monkeypatch.syspath_prepend(ROOT / "docs")
    import reproduce

    results, target = Path("results/tiny"), Path("docs/tiny")
    monkeypatch.setattr(sys, "argv", ["reproduce.py", str(results), str(target)])
    assert reproduce.main() == 2
    assert "ddis-10.csv does not exist; run the study's `snakemake ... tune`" in capsys.readouterr().err
    study = Study.load(results / "config.yaml")
    for case in [case for case in study.cases() if case.run in study.tuning.candidates]:
        tune.run(study, **vars(case))
    assert reproduce.main() == 0
    for name in (*(name for name in TABLES if not name.endswith(".tex")), "config.yaml"):
        made = results / name if name == "config.yaml" else results / "tables" / name
        assert (target / name).read_bytes() == made.read_bytes(), name
    for name in figure_names(study):
        assert (target / name).read_bytes() == (results / "figures" / name).read_bytes(), name
    shown = set(re.findall(r"\]\((.*?\.png)\)", (target / "README.md").read_text()))
    assert shown == {path.name for path in target.glob("*.png")} and "tuning-poisson-sparse-ddis.png" in shown
    assert len(pd.read_csv(target / "networks.csv")) == 5 and len(list(target.glob("tuning-*.csv"))) == 4
    record = results / "provenance" / "tune" / "poisson" / "sparse" / "ddis" / "10.json"
    known = record.read_text()
    record.write_text(known.replace('"configuration": "', '"configuration": "0').replace('"candidates": [', '"candidates": [7,'))
    assert reproduce.main() == 2
    assert "ddis-10.csv is stale: candidates was [7, " in capsys.readouterr().err
    record.write_text(known)


def test_second_call_does_nothing(finished):
    assert "Nothing to be done" in snakemake(finished)


def test_every_file_has_a_record_and_is_well(finished):
    """Also that the stages make what `records.outputs_of` says, and nothing else."""
    done = subprocess.run([str(BIN / "ddis"), "verify", "tiny"], cwd=finished, env=ENVIRONMENT, text=True, capture_output=True)
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and done.stdout.endswith("all is well\n"), done.stdout
    record = json.loads((finished / "results/tiny/provenance/train/poisson/prior.json").read_text())
    assert record["command"].endswith("ddis train --config results/tiny/config.yaml --problem poisson --model prior")
    assert set(record["inputs"]) == {"data/poisson/train.h5", "data/poisson/validation.h5"} and len(record["outputs"]) == 4


@pytest.fixture
def mlflow_runs(finished, monkeypatch):
    """MLflow's client, the runs of the stages by name, and that of the study."""
    monkeypatch.chdir(finished)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, {run.info.run_name: run for run in runs if run is not parent}, parent


def test_every_stage_is_a_run_in_mlflow(mlflow_runs):
    """Under that of the study, which spans them all and has its scores, tables and figures."""
    client, stages, parent = mlflow_runs
    assert len(stages) == 3 + 1 + 2 + 5 + 7 + 3
    assert all(run.info.status == "FINISHED" for run in [parent, *stages.values()])
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in stages.values())
    span = min(run.info.start_time for run in stages.values()), max(run.info.end_time for run in stages.values())
    assert (parent.info.start_time, parent.info.end_time) == span
    artifacts = {
        path.path for folder in (None, "tables", "figures") for path in client.list_artifacts(parent.info.run_id, folder)
    }
    assert {"config.yaml", "report.html", "tables/errors.csv", "figures/gallery-poisson-sparse.png"} <= artifacts
    assert "| poisson | sparse |" in parent.data.tags["mlflow.note.content"]
    sample, row = stages["sample/poisson/sparse/ddis-gn/10"], pd.read_csv("results/tiny/tables/errors.csv").iloc[1]
    assert (row["run"], row["percent"]) == ("ddis-gn", 10)
    assert {name: sample.data.tags[name] for name in ("problem", "method", "percent")} == {
        "problem": "poisson",
        "method": "ddis-gn",
        "percent": "10",
    }
    ratio = row["l2_mean"] / row["l2_limit"]
    for name, value in (("l2_mean", row["l2_mean"]), ("coverage90", row["coverage90"]), ("ratio_to_limit", ratio)):
        assert sample.data.metrics[name] == pytest.approx(value)
        assert parent.data.metrics[f"poisson/sparse/ddis-gn-10/{name}"] == pytest.approx(value)


def test_a_training_has_its_data_and_its_network_in_mlflow(mlflow_runs):
    """Loaded by `mlflow.pyfunc`, it computes what the study's own network does."""
    import mlflow
    import torch

    from ddis.trained import load_network

    client, stages, _ = mlflow_runs
    study = Study.load("results/tiny/config.yaml")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    prior = stages["train/poisson/prior"]
    assert len(client.get_metric_history(prior.info.run_id, "validation_loss")) == 3
    assert prior.data.params["settings.training.steps"] == "12" and prior.data.metrics["peak_memory_mb"] > 0
    fields = np.random.default_rng(0).standard_normal((2, 2, 16, 16), dtype=np.float32)
    inputs = {
        "operator-10": {"coefficient": fields[0]},
        "prior": {"x_t": fields[:, :1], "sigma": np.ones(2, np.float32)},
        "joint-100": {"x_t": fields, "sigma": np.ones(2, np.float32)},
    }
    for model, arrays in inputs.items():
        run = stages[f"train/poisson/{model}"]
        [data], [output] = run.inputs.dataset_inputs, run.outputs.model_outputs
        assert json.loads(data.dataset.profile)["training_fields"] == (6 if model == "operator-10" else 64)
        loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
        assert loaded.metadata.signature.inputs.input_names() == list(arrays)
        network = load_network(study, "poisson", model, torch.device("cpu")).network
        expected = network(*(torch.from_numpy(array) for array in arrays.values())).numpy()
        [made] = loaded.predict(arrays).values()
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)  # the same arithmetic, in another process' threads


def ddis(folder: Path, *arguments: str) -> list[str]:
    return [str(BIN / "ddis"), *arguments, "--config", str(folder / "results" / "tiny" / "config.yaml"), "--problem", "poisson"]


STAGES = {
    "prior": (("train", "--model", "prior"), "models/poisson/prior/weights.safetensors", "prior-*"),
    "joint": (("train", "--model", "joint-100"), "models/poisson/joint-100/weights.safetensors", "joint-100-*"),
    "operator": (("train", "--model", "operator-100"), "models/poisson/operator-100/weights.safetensors", "operator-100-*"),
    "sample": (
        ("sample", "--observation", "sparse", "--run", "ddis", "--percent", "100"),
        "samples/poisson/sparse/ddis-100.h5",
        "sample-sparse-ddis-100-*/0.safetensors",
    ),
}


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_killed_with_9_ends_with_the_same_bytes(finished, name):
    """Killed as soon as its first checkpoint is there; the same command then goes on from it. Arrays and weights are the same."""
    arguments, product, trace = STAGES[name]
    path = finished / "results" / "tiny" / product
    before = content_digest(path)
    path.unlink()
    work = finished / "results" / "tiny" / "work" / "poisson"
    process = subprocess.Popen(
        ddis(finished, *arguments), cwd=finished, env=ENVIRONMENT | {"DDIS_TRACKING": "off"}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list(work.glob(trace)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    subprocess.run(ddis(finished, *arguments), cwd=finished, env=ENVIRONMENT | {"DDIS_TRACKING": "off"}, check=True)
    assert content_digest(path) == before
    assert not list(work.glob(trace))


def content_digest(path: Path) -> str:
    """SHA-256 of a weight file; of a sample file, whose attributes hold timings, the digest of its arrays."""
    if path.suffix != ".h5":
        return file_digest(path)
    with h5py.File(path) as file:
        return str(file.attrs["digest"])


def test_a_stage_refuses_weights_of_another_configuration(finished, tmp_path):
    """The stored weights against a configuration with another training length: one line, before any sampling."""
    content = yaml.safe_load((finished / "results" / "tiny" / "config.yaml").read_text())
    content["prior"]["training"]["steps"] = 13
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    command = [
        str(BIN / "ddis"),
        "sample",
        "--problem",
        "poisson",
        "--observation",
        "sparse",
        "--run",
        "ddis",
        "--percent",
        "100",
    ]
    done = subprocess.run(
        [*command, "--config", str(tmp_path / "other.yaml")],
        cwd=finished,
        env=ENVIRONMENT | {"DDIS_TRACKING": "off"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "weights.safetensors was made with another configuration" in done.stderr
