"""A folder in which a small study is made, broken and mended, by Snakemake and by its stages' own commands."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddis.config import Study
from ddis.data.store import read_pairs, read_samples
from ddis.provenance import file_digest
from ddis.stages.records import outputs_of, steps
from ddis.tracking import read_record

ROOT = Path(__file__).parents[2]
STUDY = Study.load(Path(__file__).with_name("study.yaml"))
STEPS = {step.label: step for step in steps(STUDY) if step.stage != "study"}
BIN = Path(sys.executable).parent
MEASURED = ["seconds", "seconds_per_field", "seconds_per_sample", "peak_memory_mb"]
WAIT_SECONDS = 600


class Place:
    """A folder that looks like a clone, with the small study in it."""

    def __init__(self, folder: Path):
        self.folder, self.results = folder, folder / STUDY.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "workflow", "profiles", "config"):
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)
        self.environment = os.environ | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "DDIS_TRACKING": "off",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def copy(self, folder: Path) -> "Place":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Place(folder)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command in a session of its own; its output, both streams, is in stdout."""
        pipe, merged = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, stdout=pipe, stderr=merged, start_new_session=True
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return end_of(self.start(*command))

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """What a user types."""
        return self.run("bash", "-c", line)

    def snakemake(self, *options: str) -> list[str]:
        """The command that makes the study."""
        configuration = str(Path(__file__).with_name("study.yaml"))
        return ["snakemake", "--cores", "2", "--configfile", configuration, *options]

    def stage(self, label: str) -> list[str]:
        """The command of a stage."""
        step = STEPS[label]
        options = [part for name, value in step.arguments.items() for part in (f"--{name}", value)]
        return ["ddis", step.stage, "--config", f"{STUDY.folder}/config.yaml", *options]

    def outputs(self, label: str) -> list[Path]:
        return [self.folder / path for path in outputs_of(STUDY, STEPS[label])]

    def remove(self, *labels: str) -> None:
        """Removes the files of stages, as Snakemake does before it makes them again."""
        for label in labels:
            for path in self.outputs(label):
                path.unlink(missing_ok=True)

    def attempts(self, label: str) -> list[dict[str, Any]]:
        """Begin and end of each attempt at a stage in seconds since 1970; no end where it was killed."""
        found: dict[str, dict[str, Any]] = {}
        for line in read_record(self.results / "tracking" / f"{label}.jsonl"):
            key = line["id"].rpartition("-")[0]
            if line["kind"] == "start":
                found[key] = {"begin": line["time"] / 1000, "end": None}
            elif line["kind"] == "end":
                found[key]["end"] = line["time"] / 1000
        return list(found.values())

    def digests(self, *labels: str) -> dict[str, str]:
        """SHA-256 by name of what stages made, of all of them if none is given.

        Of samples the arrays count, of tables and histories what was not measured, and of model.json all but its provenance.
        """
        paths = [path for label in labels or STEPS for path in self.outputs(label)]
        return {
            path.relative_to(self.results).as_posix(): content_digest(path)
            for path in paths
            if is_comparable(path) and path.exists()
        }

    def findings(self) -> set[str]:
        """Kinds of what `ddis verify` finds."""
        verified = self.run("ddis", "verify", STUDY.study)
        *lines, summary = verified.stdout.splitlines()
        assert (verified.returncode == 0) == ("all is well" in summary), verified.stdout
        return {line.split()[0] for line in lines} - {"repair:"}

    def assert_same(self, expected: "Place") -> None:
        """All files are there, the same as another's, and no half-written ones beside them."""
        assert self.digests() == expected.digests()
        assert not [path for path in self.results.rglob(".*") if path.is_file()]

    def assert_whole(self, expected: "Place") -> None:
        """The same as another, and well by `ddis verify`."""
        self.assert_same(expected)
        assert self.findings() == set()


def is_comparable(path: Path) -> bool:
    """The texts beside a table and the figure of a training hold times, and the report tells when it was made."""
    texts = path.parent.name == "tables" and path.suffix != ".csv"
    return not (texts or path.suffix == ".html" or path.name.startswith("training-"))


def content_digest(path: Path) -> str:
    if path.suffix == ".h5" and path.parents[1].name == "data":
        read_pairs(path)
    elif path.suffix == ".h5":
        return str(read_samples(path).attributes["digest"])
    elif path.name == "model.json":
        content = json.loads(path.read_text())
        content.pop("provenance")
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
    elif path.suffix == ".csv":
        table = pd.read_csv(path)
        if path.name == "claims.csv":  # some are about time
            table = table[~table["formula"].str.contains("seconds")]
        return hashlib.sha256(table.drop(columns=MEASURED, errors="ignore").to_csv(index=False).encode()).hexdigest()
    return file_digest(path)


def end_of(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, _ = process.communicate(timeout=WAIT_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def wait_until(ready: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of a command with all that it has started."""
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def running_stages(session: int) -> dict[str, int]:
    """Process ids of the stages in a session, by label."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            words = (folder / "cmdline").read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        for label, step in STEPS.items():
            arguments = [part for name, value in step.arguments.items() for part in (f"--{name}", value)]
            if len(words) > 2 and words[1].endswith("/ddis") and words[2] == step.stage and words[5:] == arguments:
                found[label] = int(folder.name)
    return found


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@contextmanager
def mounted(folder: Path, *options: str, then: str = "") -> Iterator[None]:
    """Something mounted on a folder while the block runs; `then`: options of a second call that changes it."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount {shlex.join(options)}: {done.stderr.strip()}")
    try:
        if then:
            subprocess.run(["mount", "-o", then, str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
