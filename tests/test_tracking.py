"""The record of a stage, which knows nothing of MLflow."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tracked import start_python, work_in

from ddis.provenance import file_digest
from ddis.signals import Terminated, install_sigterm_handler
from ddis.tracking import read_record, record_path, stage_run
from ddis.tracking.beside import Exporter

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)


def test_stages_do_not_import_mlflow():
    """All of them imported, and one of them run."""
    script = f"""
        import pkgutil, sys
        from importlib import import_module
        import ddis.stages
        for module in pkgutil.iter_modules(ddis.stages.__path__):
            import_module(f"ddis.stages.{{module.name}}")
        from ddis import cli
        assert cli.main(["pairs", "--config", {str(TINY)!r}, "--problem", "poisson", "--percent", "10"]) == 0
        print([name for name in sys.modules if name.partition(".")[0] == "mlflow"])
    """
    output, errors = start_python(script).communicate()
    assert output == "[]\n", errors
    assert read_record(record_path("tiny", "pairs/poisson/10"))[-1]["status"] == "FINISHED"


def test_tracking_itself_is_light():
    script = "import sys, ddis.tracking.beside; print([name for name in ('mlflow', 'torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_record_holds_what_the_stage_says():
    table, parameters = Path("results/study/tables/errors.csv"), {"model": {"channels": [16, 32]}, "limit": None}
    table.parent.mkdir(parents=True)
    table.write_text("run,l2_mean\nexact,1.5\n")
    with stage_run("study", "train/poisson/prior", parameters, {"git_commit": "ab"}) as run:
        run.metrics({"loss": 0.5, "odd": float("nan")}, 7)
        run.artifact(table)
        run.tag("best_step", 999)
        run.dataset("poisson", Path("results/study/data/poisson/train.h5"), "0123", training_fields=64)
        run.network(Path("results/study/models/poisson/prior"), {"x_t": (-1, 1, 8, 8)}, {"x0_hat": (-1, 1, 8, 8)})
    lines = read_record(record_path("study", "train/poisson/prior"))
    assert [line["kind"] for line in lines] == ["start", "metrics", "artifact", "tag", "dataset", "network", "metrics", "end"]
    assert len({line["id"] for line in lines}) == len(lines) and [line["time"] for line in lines] == sorted(
        line["time"] for line in lines
    )
    start, metrics, artifact, tag, dataset, network, usage, end = lines
    assert start["parameters"] == parameters and start["tags"]["git_commit"] == "ab" and start["stage"] == "train/poisson/prior"
    assert (metrics["step"], metrics["values"]) == (7, {"loss": 0.5, "odd": "nan"})
    assert (artifact["path"], artifact["sha256"]) == ("tables/errors.csv", file_digest(table))
    assert (tag["key"], tag["value"]) == ("best_step", "999")
    assert (dataset["path"], dataset["profile"]) == ("data/poisson/train.h5", {"training_fields": 64})
    assert (network["folder"], network["inputs"]) == ("models/poisson/prior", {"x_t": [-1, 1, 8, 8]})
    assert usage["values"]["seconds"] > 0 and usage["values"]["cpu_seconds"] > 0 and usage["values"]["peak_memory_mb"] > 10
    assert (end["status"], end["error"]) == ("FINISHED", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("diverged"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Terminated(), "KILLED"), (SystemExit(3), "FAILED")],
)
def test_how_a_stage_ends(error, status):
    with pytest.raises(type(error)), stage_run("ends", "tables", {}):
        raise error
    end = read_record(record_path("ends", "tables"))[-1]
    assert end["status"] == status and end["error"]


def test_sigterm_ends_a_stage_as_killed():
    previous = signal.getsignal(signal.SIGTERM)
    try:
        install_sigterm_handler()
        with pytest.raises(Terminated), stage_run("sigterm", "tables", {}):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert read_record(record_path("sigterm", "tables"))[-1]["status"] == "KILLED"


def test_half_a_line_of_a_killed_process_spoils_nothing():
    path = record_path("killed", "tables")
    with stage_run("killed", "tables", {}):
        pass
    with path.open("a") as file:
        file.write('{"id": "half a li')
    before = read_record(path)
    with stage_run("killed", "tables", {}):
        pass
    assert read_record(path)[: len(before)] == before and len(read_record(path)) == 2 * len(before)


def test_what_cannot_be_written_or_attached_warns_once(caplog):
    with stage_run("missing", "tables", {}) as run:
        run.artifact("nowhere.csv")
    assert len(caplog.records) == 1 and "nowhere.csv" in caplog.text
    caplog.clear()
    Path("results/full").mkdir(parents=True)
    Path("results/full/tracking").write_text("a file where the folder should be")
    with stage_run("full", "tables", {}) as run:
        run.metrics({"loss": 1.0}, 0)
    assert len(caplog.records) == 1 and "results/full/tracking" in caplog.text


@pytest.mark.parametrize("stage", ["../out", "/tmp/out", "a//b", "", "a b"])
def test_names_cannot_leave_the_study(stage):
    with pytest.raises(ValueError, match="stage"), stage_run("s", stage, {}):
        pass


def test_switched_off_nothing_is_started(monkeypatch):
    monkeypatch.setenv("DDIS_TRACKING", "off")
    exporter = Exporter("study")
    exporter.start()
    exporter.finish(pytest.fail)
    assert not Path("results").exists()
