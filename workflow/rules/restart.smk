import atexit
import platform
import shutil
import subprocess
import time
from base64 import urlsafe_b64decode
from pathlib import Path

from ddis.files import write_text
from ddis.stages.records import Step, check_folders, check_links
from ddis.tracking.process import process_start


def start_of(pid):
    """When a process of this machine began, as one word; "" if it has ended. Another one with its id began later."""
    return "-".join((process_start(pid) or "").split())


STATE = Path(".snakemake")
OWNER = STATE / f"{study.study}.owner"  # the process that last worked on this study
SLURM_NAME = STATE / f"{study.study}.slurm"
OWN = f"{platform.node()} {os.getpid()} {start_of(os.getpid())} "
WORKING = "working"
CLOCK_SECONDS = 60  # what the clocks of a shared disk and of this machine may differ by
CANCEL_SECONDS = 60  # Slurm gives a job 30 s to end in order


def is_running(owner):
    """Whether the process `node pid start ...` may still run; processes of other machines count as running."""
    node, pid, start = [*owner.split(), "", "", ""][:3]
    if node != platform.node():
        return bool(node)
    found = process_start(int(pid))  # "" of a process that may not be seen
    return found == "" or start_of(int(pid)) == start != ""


def other_owner():
    """What `OWNER` says of another process that may still run; "" if there is none."""
    owner = OWNER.read_text() if OWNER.exists() else ""
    return owner if not owner.startswith(OWN) and is_running(owner) else ""


def own_study():
    """Notes that this process works on the study. Stops if another one does.

    Snakemake's own lock is not enough: any other Snakemake in this folder that ends, even a dry run, removes all locks.
    """
    if (other := other_owner()).endswith(WORKING):
        node, pid = other.split()[:2]
        raise WorkflowError(
            f"Snakemake process {pid} on {node} works on study {study.study}; wait for it. "
            "If it was killed: the same command with --unlock, then without"
        )
    write_text(OWNER, OWN + WORKING)


def disown_study():
    if OWNER.exists() and OWNER.read_text().startswith(OWN):
        OWNER.unlink()


def clear_after_kill():
    """After kill -9 of Snakemake, removes its lock and the outputs it had marked as unfinished: the same command goes on."""
    for lock in (STATE / "locks").glob("*.lock"):
        if f"results/{study.study}/" in lock.read_text():
            lock.unlink()
    marks = STATE / "incomplete"
    for mark in [path for path in marks.rglob("*") if path.is_file()]:
        # The name of a mark is the output's path, in base64; a long one is cut into folders that begin with @.
        name = "".join(part.removeprefix("@") for part in mark.relative_to(marks).parts)
        output = Path(urlsafe_b64decode(name).decode())
        if output.is_relative_to(study.folder):
            output.unlink(missing_ok=True)
            mark.unlink()


def mend_times():
    """Gives files with times in the future, from a clock that was wrong, the present one: they would be newer than all that is
    made from them, which would be made again and again."""
    now = time.time()
    late = [
        path
        for path in study.folder.rglob("*")
        if path.is_file() and path.stat().st_mtime > now + CLOCK_SECONDS
    ]
    for path in late:
        os.utime(path, (now, now))
    if late:
        logger.warning(
            f"{len(late)} files of {study.folder} have times in the future, such as {late[0]}; they get the present time"
        )


def cancel_left_jobs():
    """Cancels Slurm jobs that a Snakemake which was killed has left: this one holds the study's lock, and submits them anew."""
    name = SLURM_NAME.read_text() if SLURM_NAME.exists() else ""
    if left := slurm_jobs(name):
        logger.warning(
            f"Cancelling Slurm jobs of an earlier Snakemake: {' '.join(left)}"
        )
        subprocess.run(["scancel", *left])
        deadline = time.monotonic() + CANCEL_SECONDS
        while slurm_jobs(name) and time.monotonic() < deadline:
            time.sleep(1)
    # All Slurm jobs of this Snakemake have one name; other executors have none.
    SLURM_NAME.write_text(getattr(workflow.scheduler._executor, "run_uuid", ""))


def slurm_jobs(name):
    """Ids of this user's Slurm jobs of a name that wait or run."""
    if not name or not shutil.which("squeue"):
        return []
    command = ["squeue", "--me", "--noheader", "--format=%i", f"--name={name}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def check_study_folder():
    """Stops before the first job if the results cannot be written."""
    try:
        check_folders(study, Step("study"))
    except InputError as error:
        raise WorkflowError(str(error))


# Jobs read this file too, and do nothing here. Whether this call will work or only look is not known yet.
if workflow.is_main_process:
    try:
        check_links(study.folder)
    except InputError as error:
        raise WorkflowError(str(error))
    atexit.register(disown_study)
    if "--unlock" in sys.argv:
        OWNER.unlink(missing_ok=True)
    elif not other_owner():
        if OWNER.exists():
            clear_after_kill()
        write_text(OWNER, OWN)
        mend_times()
