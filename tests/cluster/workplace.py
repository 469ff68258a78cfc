"""A folder in which a study is made through Slurm, or without it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from slurm import Slurm

ROOT = Path(__file__).parents[2]
STUDY = Path(__file__).with_name("study.yaml")
SNAKEMAKE = Path(__file__).with_name("quick_snakemake.py")
BIN = Path(sys.executable).parent
WAIT_SECONDS = 300


class Workplace:
    """A folder in which Slurm jobs make the study."""

    def __init__(self, folder: Path, slurm: Slurm, profile: Path):
        self.folder, self.slurm, self.profile = folder, slurm, profile
        self.results = folder / "results" / "cluster"
        self.steps_done: list[int] = []
        self.environment = slurm.environment | {
            "PATH": f"{slurm.folder}/bin:{BIN}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "DDIS_TRACKING": "off",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def copy(self, folder: Path) -> "Workplace":
        shutil.copytree(self.folder, folder)
        return Workplace(folder, self.slurm, self.profile)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Snakemake on the cluster, running."""
        return self._start("--profile", str(self.profile), *options)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Snakemake on the cluster, finished."""
        return end_of(self.start(*options))

    def run_locally(self) -> subprocess.CompletedProcess[str]:
        return end_of(self._start("--cores", "2"))

    def _start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(SNAKEMAKE), "-s", str(ROOT / "Snakefile"), "--configfile", str(STUDY)]
        return subprocess.Popen(
            [*command, "--directory", str(self.folder), *options],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait_for_checkpoint(self) -> None:
        """Until the training of the prior has written a checkpoint, from now on."""
        before = {path: path.stat().st_mtime_ns for path in self.checkpoints()}
        wait_until(
            lambda: any(path.stat().st_mtime_ns != before.get(path) for path in self.checkpoints()), "there is a new checkpoint"
        )

    def checkpoints(self) -> list[Path]:
        """Of the prior's training: one file, or none."""
        return list((self.results / "work" / "poisson").glob("prior-*.safetensors"))

    def process_of_prior(self) -> int:
        """Process id of the prior's training."""
        return int((self.results / "work" / "running" / "train" / "poisson" / "prior").read_text().split()[1])

    def job_of_prior(self) -> str:
        """Id of its Slurm job."""
        jobs = self.slurm.command("squeue", "--noheader", "--states=R", "--format=%i %k").splitlines()
        return next(line.split()[0] for line in jobs if "rule_train_prior" in line)


def end_of(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, _ = process.communicate(timeout=1800)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def wait_until(ready: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)
