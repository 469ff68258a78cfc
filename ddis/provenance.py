"""How a result was made: settings, versions, commit, machine, command. Imports nothing heavy."""

import hashlib
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ddis
from ddis.errors import printable
from ddis.reading import cannot_read

PACKAGES = (
    *("torch", "numpy", "scipy", "h5py", "neuraloperator", "azula", "safetensors", "pandas", "matplotlib"),
    *("threadpoolctl", "mlflow", "snakemake"),
)


def collect(settings: dict[str, Any], seed: int | None, device: str = "cpu") -> dict[str, Any]:
    """All that is needed to make a result again, as a dictionary that JSON and YAML can hold.

    `settings` are the resolved settings of the stage, `device` is the torch device it runs on (`cpu`, `cuda`, `cuda:0`).
    Never fails for want of git, and reports None for what it cannot find.
    """
    return {
        "settings": settings,
        "seed": seed,
        "versions": {"ddis": ddis.__version__} | {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        **git_state(),
        "device": device_name(device),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "threads": thread_count(),
        "command": printable(shlex.join(sys.argv)),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def tags(record: dict[str, Any]) -> dict[str, str]:
    """The part of `collect` that describes the attempt and not the settings, flat, as tags for tracking."""
    flat = {key: value for key, value in record.items() if key not in ("settings", "versions")}
    flat |= {f"version.{name}": version for name, version in record["versions"].items()}
    # The name under which MLflow shows a commit in its list of runs.
    flat["mlflow.source.git.commit"] = record["git_commit"]
    return {key: str(value) for key, value in flat.items() if value is not None}


def git_state() -> dict[str, Any]:
    """`git_commit` (str) and `git_dirty` (bool) of the repository around the working directory; None where there is none.

    Files that git ignores do not count; new files that it does not ignore do.
    """
    command = ["git", "status", "--porcelain=v2", "--branch"]
    # Parallel jobs must not meet at git's index lock.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
    lines = done.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    return {"git_commit": commit, "git_dirty": any(not line.startswith("#") for line in lines)}


def device_name(device: str = "cpu") -> str:
    """The name a reader knows the device by: the GPU's for `cuda...`, else the processor's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def thread_count() -> int:
    """Threads of the numerical libraries: torch's where it is loaded, else what the environment says."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    declared = os.environ.get("OMP_NUM_THREADS", "")
    return int(declared) if declared.isdigit() else os.cpu_count() or 1


def peak_memory_mb() -> float:
    """Largest memory use of this process so far in MiB: on the GPU where it used one through torch, else resident memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 2**20
    try:
        # Not ru_maxrss: on Linux that also holds the parent's memory, from before this program was started.
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's content. Raises OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_digest(path: Path) -> str:
    """As `file_digest`, of a file that a user named. Raises InputError where it cannot be read."""
    try:
        return file_digest(path)
    except OSError as error:
        raise cannot_read(path, error) from error


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
