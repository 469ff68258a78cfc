"""The Snakemake workflow: what it would run, and when. A stand-in for the command `ddis` writes the stages' files, empty."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from ddis.config import Study
from ddis.stages import code, modules
from ddis.stages.layout import figure_names

ROOT = Path(__file__).parents[1]
STAND_IN = """
import json, sys
from pathlib import Path

def main():
    stage, *options = sys.argv[1:]
    given = {key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}
    if stage == "study":
        name = json.loads(given["settings"])["study"]
        files = [f"results/{name}/config.yaml"]
    else:
        folder = Path(given["config"])
        assert folder.exists()
        files = [f"{folder.parent}/{name}" for name in FILES[stage].format(**given).split()]
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(given.get("settings", ""))

TRAINED = ["weights.safetensors", "model.json", "history.csv", "denoising.csv"]
FILES = {
    "generate": "data/{problem}/{split}.h5",
    "card": "data/{problem}/card.md data/{problem}/card.yaml data/{problem}/pairs.png",
    "pairs": "data/{problem}/pairs-{percent}.csv",
    "train": " ".join("models/{problem}/{model}/" + name for name in TRAINED),
    "sample": "samples/{problem}/{observation}/{run}-{percent}.h5",
    "tables": "tables/errors.csv tables/errors.md tables/errors.tex",
    "figures": "FIGURES",
    "report": "report.html",
}
"""
EVERY_JOB = {
    "generate": 3,
    "card": 1,
    "pairs": 2,
    "train_prior": 1,
    "train_on_pairs": 4,
    "sample": 7,
    "tables": 1,
    "figures": 1,
    "report": 1,
    "all": 1,
}


class Clone:
    """A copy of the workflow and of the package, whose stages are stand-ins."""

    def __init__(self, folder: Path):
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("ddis", "config", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("Snakefile", "environment.yml"):
            shutil.copy(ROOT / name, folder)
        figures = " ".join(f"figures/{name}" for name in figure_names(Study.load(ROOT / "config" / "config.yaml")))
        (folder / "ddis" / "cli.py").write_text(STAND_IN.replace("FIGURES", figures))

    def snakemake(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The finished command; its output in stdout."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.folder)}
        return subprocess.run(
            [Path(sys.executable).with_name("snakemake"), *options],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def jobs(self, *options: str) -> dict[str, int]:
        """Number of jobs per rule that a dry run lists."""
        done = self.snakemake("-n", "--quiet", "rules", *options)
        assert done.returncode == 0, done.stdout
        return {} if "Nothing to be done" in done.stdout else listed(done.stdout)


def listed(output: str) -> dict[str, int]:
    """Number of jobs per rule in Snakemake's table."""
    table = output.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the default study is finished."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    done = clone.snakemake("--cores", "2")
    assert done.returncode == 0, done.stdout
    assert listed(done.stdout) == EVERY_JOB
    return clone


def configuration(clone: Clone, name: str, changes: Mapping[str, object]) -> str:
    settings = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8")) | dict(changes)
    (clone.folder / name).write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    return name


def test_rules_follow_the_rules_of_the_linter() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("snakemake"), "--lint"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0 and "good condition" in done.stdout, done.stdout


def test_rules_are_formatted() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("snakefmt"), "--check", "Snakefile", "workflow"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_done_twice(clone: Clone) -> None:
    assert clone.jobs() == {}
    assert (clone.folder / "results" / "quickstart" / "config.yaml").exists()


def test_a_changed_weight_makes_again_what_depends_on_it(clone: Clone) -> None:
    changed = clone.jobs("--config", 'runs={"ddis": {"weight": 0.7}}')
    assert changed == {"sample": 2, "tables": 1, "figures": 1, "report": 1, "all": 1}


def test_changed_code_makes_again_what_runs_it(clone: Clone) -> None:
    source = clone.folder / "ddis" / "sampling" / "fundps.py"
    text = source.read_text()
    source.write_text(f"{text}\nCHANGED = True\n")
    try:
        assert clone.jobs() == {"sample": 2, "tables": 1, "figures": 1, "report": 1, "all": 1}
    finally:
        source.write_text(text)


def test_a_configuration_is_not_mixed_with_the_default_one(clone: Clone) -> None:
    other = configuration(clone, "other.yaml", {"study": "other", "runs": {"exact": {"samples": 4}}, "tuning": None})
    expected = {"generate": 3, "card": 1, "sample": 1, "tables": 1, "figures": 1, "report": 1, "all": 1}
    assert clone.jobs("--configfile", other) == expected


def test_a_wrong_configuration_is_one_clear_message(clone: Clone) -> None:
    wrong = configuration(clone, "wrong.yaml", {"fractions": [1.5]})
    done = clone.snakemake("-n", "--configfile", wrong)
    assert done.returncode != 0
    assert "fractions" in done.stdout and "1.5" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_command_goes_on_after_snakemake_was_killed(clone: Clone) -> None:
    state, report = clone.folder / ".snakemake", clone.folder / "results" / "quickstart" / "report.html"
    lock = state / "locks" / "0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/quickstart/report.html\n")
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    (state / "quickstart.owner").write_text(f"{platform.node()} {ended.pid}")
    report.unlink()
    done = clone.snakemake("--cores", "2")
    assert done.returncode == 0, done.stdout
    assert report.exists() and not lock.exists()


def test_the_code_of_a_stage_is_what_it_imports() -> None:
    sample = modules("stages.sample")
    assert {"stages.sample", "stages.networks", "data.store", "sampling.base", "models.denoiser"} <= sample
    assert not {"sampling.fundps", "pde.poisson", "training.loop", "tracking", "config"} & sample
    assert code("sample", Clone) != code("sample")
