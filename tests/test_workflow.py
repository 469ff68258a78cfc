"""The Snakemake workflow: what it would run, and when. A stand-in for the command `ddis` writes the stages' files, empty."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from ddis.stages.owner import OWNER

ROOT = Path(__file__).parents[1]
STAND_IN = """
import hashlib
import json, sys
from pathlib import Path

def main():
    stage, *options = sys.argv[1:]
    given = {key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}
    if stage == "study":
        return plan(json.loads(given["settings"]))
    folder = Path(given.pop("config")).parent
    label = "/".join([stage, *given.values()])
    record = json.loads((folder / "logs" / "plan.json").read_text())[label]
    record["inputs"] = digests(folder, record["inputs"])
    for name in record["outputs"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(label + record["configuration"])
    record["outputs"] = digests(folder, record["outputs"])
    path = folder / "provenance" / f"{label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))

def digests(folder, names):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

def plan(settings):
    from ddis.config import Study
    from ddis.steps import Step
    from ddis.stages.records import asked_steps, inputs_of, name_of, outputs_of, steps
    study = Study.load(settings)
    shards = [Step("draw", {**vars(case), "shard": str(i)}) for case in study.cases() for i in range(len(study.shards_of(case)))]
    records = {
        step.label: {
            "configuration": step.digest(study),
            "settings": study.inputs(step.stage, **step.arguments),
            "inputs": [name_of(study, path) for path in inputs_of(study, step)],
            "outputs": [name_of(study, path) for path in outputs_of(study, step)],
        }
        for step in [*steps(study)[1:], *asked_steps(study), *shards]
    }
    (study.folder / "config.yaml").write_text("")
    (study.folder / "logs" / "plan.json").write_text(json.dumps(records))
"""
EVERY_JOB = {
    "generate": 3,
    "card": 1,
    "pairs": 2,
    "train_prior": 1,
    "train_on_pairs": 4,
    "sample": 9,
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
        shutil.copy(ROOT / "Snakefile", folder)
        (folder / "profiles").symlink_to("workflow/profiles")
        (folder / "ddis" / "cli.py").write_text(STAND_IN)

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


def test_the_linter_misses_nothing_but_an_environment_for_each_rule() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("snakemake"), "--lint"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    titles = set(re.findall(r"^    \* (.*)$", done.stdout, re.MULTILINE))
    assert titles == {"Specify a conda environment or container for each rule.:"}, done.stdout


def test_rules_are_formatted() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("snakefmt"), "--check", "Snakefile", "workflow"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_done_twice(clone: Clone) -> None:
    assert clone.jobs() == {}
    assert (clone.folder / "results" / "quickstart" / "config.yaml").exists()


def test_the_page_of_the_paper_is_made_when_it_is_asked_for(clone: Clone) -> None:
    assert clone.jobs("--", "paper") == {"guidance": 1, "paper_page": 1, "paper": 1}
    changed = clone.jobs("--config", 'runs={"ddis": {"weight": 0.7}}', "--", "paper")
    assert changed == {"sample": 2, "tables": 1, "guidance": 1, "paper_page": 1, "paper": 1}


def test_a_changed_weight_makes_again_what_depends_on_it(clone: Clone) -> None:
    changed = clone.jobs("--config", 'runs={"ddis": {"weight": 0.7}}')
    assert changed == {"sample": 2, "tables": 1, "figures": 1, "report": 1, "all": 1}


def test_a_raised_version_makes_again_what_is_of_its_kind(clone: Clone) -> None:
    """And no change of the code does by itself."""
    fundps, versions = clone.folder / "ddis" / "sampling" / "fundps.py", clone.folder / "ddis" / "versions.py"
    texts = {path: path.read_text() for path in (fundps, versions)}
    try:
        fundps.write_text(f"{texts[fundps]}\nCHANGED = True\n")
        assert clone.jobs() == {}
        versions.write_text(texts[versions].replace('"fundps": 1', '"fundps": 2'))
        assert clone.jobs() == {"sample": 2, "tables": 1, "figures": 1, "report": 1, "all": 1}
        versions.write_text(texts[versions].replace('"poisson": 1', '"poisson": 2'))
        assert clone.jobs() == {job: count for job, count in EVERY_JOB.items() if job != "pairs"}
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_the_reason_of_a_job_names_what_changed(clone: Clone) -> None:
    done = clone.snakemake("-n", "--config", 'runs={"ddis": {"weight": 0.7}}')
    assert "settings.weight was 0.5, is 0.7" in done.stdout, done.stdout


def test_files_that_are_stale_for_reasons_of_their_own_can_be_asked_for_together(clone: Clone) -> None:
    samples = "results/quickstart/samples/poisson/sparse"
    changes = 'runs={"ddis": {"weight": 0.7}, "fundps": {"weight": 700}}'
    assert clone.jobs("--config", changes, "--", f"{samples}/ddis-100.h5", f"{samples}/fundps-100.h5") == {"sample": 2}


def test_a_dry_run_tells_the_hours_that_are_left(clone: Clone) -> None:
    """Records of the stand-ins tell no times."""
    runs = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["runs"]
    runs["ddis"]["weight"] = 0.7
    whole, part = configuration(clone, "a study.yaml", {"runs": runs}), "part.yaml"
    (clone.folder / part).write_text(yaml.safe_dump({"runs": {"ddis": {"weight": 0.7}}}))
    of_one = f"`ddis cost --config '{clone.folder}/{whole}'`"
    of_more = "`ddis cost --config FILE` (a file with all these settings)"
    for options, command in (
        (("--configfile", whole), of_one),
        (("--configfile", "config/config.yaml", part), of_more),
        (("--config", 'runs={"ddis": {"weight": 0.7}}'), of_more),
    ):
        told = f"Hours left: not known, 2 of 2 jobs have no estimate, which {command} makes."
        done = clone.snakemake("-n", *options)
        assert told in done.stdout, done.stdout
    assert "Hours left" not in clone.snakemake("-n").stdout


def test_a_study_is_as_finished_where_it_was_copied_to(clone: Clone, tmp_path: Path) -> None:
    """Without .snakemake, and with all files of one age, in the order of the copy."""
    copy = Clone(tmp_path)
    shutil.copytree(clone.folder / "results", copy.folder / "results", copy_function=shutil.copyfile)
    now = time.time()
    for age, path in enumerate(sorted(copy.folder.glob("results/**/*"))):
        os.utime(path, (now - age, now - age))
    assert copy.jobs() == {}
    assert copy.jobs("--config", "seed=5") == EVERY_JOB
    (copy.folder / "results" / "quickstart" / "models" / "poisson" / "operator-1" / "model.json").unlink()
    assert copy.jobs()["train_on_pairs"] == 1


def test_a_record_of_another_input_makes_again_what_was_made_from_it(clone: Clone) -> None:
    record = clone.folder / "results" / "quickstart" / "provenance" / "train" / "poisson" / "operator-1.json"
    text = record.read_text()
    content = json.loads(text)
    content["outputs"]["models/poisson/operator-1/weights.safetensors"] = "0"
    record.write_text(json.dumps(content))
    try:
        jobs = clone.jobs()
    finally:
        record.write_text(text)
    assert jobs == {"sample": 3, "tables": 1, "figures": 1, "report": 1, "all": 1}


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


def test_a_configuration_is_read_as_ddis_study_reads_it(clone: Clone) -> None:
    """Snakemake's own reading would take the last of two equal keys, `on` for a truth value, and 007 for a number."""
    default = (ROOT / "config" / "config.yaml").read_text(encoding="utf-8")
    names = default.replace("sparse: {count: 125", "on: {count: 125").replace("exact: {samples: 8}", "1e3: {method: exact}")
    (clone.folder / "names.yaml").write_text(names, encoding="utf-8-sig")
    done = clone.snakemake("-n", "--configfile", "names.yaml", "--config", "study=007", "seed=3")
    assert done.returncode == 0 and "results/007/samples/poisson/on/1e3-100.h5" in done.stdout, done.stdout
    (clone.folder / "twice.yaml").write_text(default.replace("seed: 0", "seed: 0\nseed: 1"))
    done = clone.snakemake("-n", "--configfile", "twice.yaml")
    assert done.returncode != 0 and "twice.yaml: key 'seed' stands in lines 4 and 5" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout


def test_the_default_configuration_in_another_encoding_is_one_clear_message(clone: Clone) -> None:
    path = clone.folder / "config" / "config.yaml"
    text = path.read_bytes()
    path.write_bytes(b"# Ger\xe4t\n" + text)
    try:
        done = clone.snakemake("-n", "--config", "seed=3")
    finally:
        path.write_bytes(text)
    assert done.returncode != 0 and "config/config.yaml is not UTF-8: byte 5 (0xe4) in line 1" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout


def test_the_command_goes_on_after_snakemake_was_killed(clone: Clone) -> None:
    """Its locks are left, and the mark that an output is unfinished."""
    state, report = clone.folder / ".snakemake", clone.folder / "results" / "quickstart" / "report.html"
    lock, mark = state / "locks" / "0.output.lock", state / "incomplete" / b64encode(b"results/quickstart/report.html").decode()
    owner = clone.folder / "results" / "quickstart" / OWNER
    for path, text in ((lock, "results/quickstart/report.html\n"), (owner, f"{platform.node()} 1\n"), (mark, "{}")):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    done = clone.snakemake("--cores", "2")
    assert done.returncode == 0 and listed(done.stdout) == {"report": 1, "all": 1}, done.stdout
    assert report.exists() and not mark.exists() and not owner.exists()


def test_a_study_that_another_process_works_on_is_refused(clone: Clone) -> None:
    study = clone.folder / "results" / "quickstart"
    report = study / "report.html"
    report.unlink()
    program = f"""from pathlib import Path; from ddis.stages.owner import own
own(Path({str(study)!r})); print("owned", flush=True); input()"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "owned\n"
        done = clone.snakemake("--cores", "2")
        other.communicate("\n")
    expected = f"process {other.pid} on {platform.node()} works on study quickstart; wait for it"
    assert done.returncode != 0 and expected in done.stdout and not report.exists(), done.stdout
    assert clone.snakemake("--cores", "2").returncode == 0 and report.exists()


def test_a_process_of_another_host_cannot_be_seen_so_that_a_person_decides(clone: Clone) -> None:
    study = clone.folder / "results" / "quickstart"
    owner, report = study / OWNER, study / "report.html"
    owner.parent.mkdir(exist_ok=True, parents=True)
    owner.write_text("elsewhere 12\n")
    report.unlink()
    done = clone.snakemake("--cores", "2")
    assert done.returncode != 0 and f"rm results/quickstart/{OWNER}" in done.stdout and not report.exists(), done.stdout
    owner.unlink()
    assert clone.snakemake("--cores", "2").returncode == 0 and report.exists()


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file and folder, Snakemake's own log and the caches of Python aside."""
    beside = (".snakemake", "snakemake", "__pycache__")
    paths = [
        path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in beside and path.parent.name != beside[2]
    ]
    return {str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


@pytest.mark.parametrize("options", [["--dry-run"], ["--lint"], ["--unlock"], ["--summary"], ["--dry-run", "--forceall"]])
def test_what_only_looks_changes_no_file(clone: Clone, options: list[str]) -> None:
    """Not even where a run would mend times and go on after a kill."""
    study = clone.folder / "results" / "quickstart"
    owner, table = study / OWNER, study / "tables" / "errors.csv"
    owner.parent.mkdir(exist_ok=True, parents=True)
    owner.write_text(f"{platform.node()} 1\n")
    tomorrow = time.time() + 86400
    os.utime(table, (tomorrow, tomorrow))
    before = snapshot(clone.folder)
    done = clone.snakemake(*options, "--config", "seed=5")
    assert done.returncode == (options == ["--lint"]), done.stdout
    assert snapshot(clone.folder) == before
    owner.unlink()
    os.utime(table)


def test_times_in_the_future_become_the_present(clone: Clone) -> None:
    table = clone.folder / "results" / "quickstart" / "tables" / "errors.csv"
    tomorrow = time.time() + 86400
    os.utime(table, (tomorrow, tomorrow))
    done = clone.snakemake("--cores", "2")
    assert done.returncode == 0 and "1 files of results/quickstart have times in the future" in done.stdout, done.stdout
    assert table.stat().st_mtime <= time.time() and clone.jobs() == {}


def test_a_study_whose_folder_leads_elsewhere_is_refused(clone: Clone, tmp_path: Path) -> None:
    link = clone.folder / "results" / "other"
    link.symlink_to(tmp_path)
    try:
        done = clone.snakemake("--cores", "2", "--config", "study=other")
    finally:
        link.unlink()
    assert done.returncode != 0 and "results/other is a link to" in done.stdout, done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["results/blocked", "results/blocked/data", "results/blocked/logs"])
def test_a_file_in_the_place_of_a_folder_is_one_clear_message(clone: Clone, name: str) -> None:
    path = clone.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("not of a study")
    try:
        for options in (["-n"], ["--cores", "1"]):
            done = clone.snakemake(*options, "--config", "study=blocked")
            assert (
                done.returncode != 0 and f"{name} is a file where study blocked has a folder; accepted: a folder" in done.stdout
            )
            assert "Traceback" not in done.stdout
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("samples/poisson/sparse/ddis-50.h5", "poisson/sparse/ddis-50 is not in the study; accepted: poisson/sparse/ddis-1, "),
        ("references/poisson/sparse.h5", "reference poisson/sparse is not in the study; accepted: none, `references` is not set"),
        ("models/poisson/other-100/model.json", "model 'other-100' is unknown; accepted: prior, joint-<percent>, "),
    ],
)
def test_a_target_that_is_not_in_the_study_is_one_clear_message(clone: Clone, target: str, message: str) -> None:
    done = clone.snakemake("-n", f"results/quickstart/{target}")
    assert done.returncode != 0 and message in done.stdout and "Traceback" not in done.stdout, done.stdout


def test_sampling_in_parts_has_few_jobs_and_is_not_done_again(clone: Clone) -> None:
    """12 test fields: 8 samples each in batches of 64 are two parts, one sample each are one batch, which no job shares."""
    changed = ("--config", "shards=5")
    new = clone.jobs("--forcerun", "sample", *changed)
    assert new["draw"] == 5 * 2 and new["sample"] == EVERY_JOB["sample"]
    # The report holds the whole configuration.
    assert clone.jobs(*changed) == {"report": 1, "all": 1}
    done = clone.snakemake("--cores", "2", "--forcerun", "sample", *changed)
    assert done.returncode == 0 and listed(done.stdout)["draw"] == 10, done.stdout
    assert not list((clone.folder / "results" / "quickstart" / "work").rglob("*.drawn"))


def test_jobs_that_want_a_gpu_take_turns_on_one_machine(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    for file, old, new in (
        ("ddis/stages/common.py", "torch.cuda.is_available()", "True"),
        ("ddis/stages/common.py", "bool(devices)", "True"),
        ("ddis/cli.py", "def main():", "def main():\n    if sys.argv[1] in ('train', 'sample'):\n        wait()\n"),
        ("ddis/cli.py", "import json, sys", "import json, sys, time"),
    ):
        path = clone.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    with (clone.folder / "ddis" / "cli.py").open("a") as file:
        file.write(WAIT)
    done = clone.snakemake("--cores", "4")
    assert done.returncode == 0, done.stdout
    times = sorted(tuple(map(float, line.split())) for line in (clone.folder / "times.txt").read_text().splitlines())
    assert len(times) == 5 + EVERY_JOB["sample"]
    assert all(end <= begin for (_, end), (begin, _) in pairwise(times))


WAIT = """
def wait():
    begin = time.time()
    time.sleep(0.3)
    with open("times.txt", "a") as file:
        file.write(f"{begin} {time.time()}\\n")
"""
