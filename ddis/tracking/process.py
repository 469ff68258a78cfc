"""Which process works on a run, and whether it has ended."""

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

# States of a Slurm job whose processes may still be there.
_AT_WORK = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}


def process_tags() -> dict[str, str]:
    """Tags that name this process: host, number, start (numbers are used again), and its Slurm job if it is in one."""
    tags = {
        "ddis.host": os.uname().nodename,
        "ddis.pid": str(os.getpid()),
        "ddis.process_start": process_start(os.getpid()) or "",
    }
    job = os.environ.get("SLURM_JOB_ID")
    return tags | ({"ddis.slurm_job": job} if job else {})


def has_ended(tags: Mapping[str, str], gone: Collection[str] = ()) -> bool | None:
    """Whether the process that `tags` name has ended; None if that cannot be seen from here.

    Of this host the process decides, of another one its Slurm job. Processes of the hosts `gone` count as ended.
    """
    host, pid, job = (tags.get(f"ddis.{name}", "") for name in ("host", "pid", "slurm_job"))
    if host in gone:
        return True
    if host == os.uname().nodename and pid.isdigit():
        start, known = process_start(int(pid)), tags.get("ddis.process_start")
        if start is None:
            return True
        return start != known if start and known else None
    return _job_has_ended(job) if job.isdigit() else None


def process_start(pid: int) -> str | None:
    """When a process of this host was started, as a text to compare; None if there is none, empty if it may not be seen."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's
        pass
    if not Path("/proc/self/stat").exists():
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
        return shown.stdout.strip()
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    # The name before it, in brackets, may hold anything. Clock ticks since the machine was started are field 22.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"


def _job_has_ended(job: str) -> bool | None:
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    if shown.returncode:
        # Slurm forgets jobs some minutes after their end.
        return True if "Invalid job id" in shown.stderr else None
    return not _AT_WORK.intersection(shown.stdout.split())
