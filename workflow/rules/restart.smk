import os
import shlex
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

from ddis.stages.owner import own
from ddis.stages.remaining import hours_left
from ddis.stages.records import check_folders, check_links
from ddis.steps import Step

SLURM_NAME = Path(".snakemake") / f"{study.study}.slurm"
CLOCK_SECONDS = 60  # what the clocks of a shared disk and of this machine may differ by
CANCEL_SECONDS = 60  # Slurm gives a job 30 s to end in order


def begin():
    """What must be done before Snakemake looks at files, if this call is to run jobs.

    Input functions call it, while the graph is built. Only then is it known whether the call works or looks (`--dry-run`,
    `--unlock`, `--summary`); what only looks changes nothing.
    """
    if workflow.is_main_process and workflow.executor_plugin:
        tell_hours()
        if not workflow.dryrun:
            prepare()


@cache
def tell_hours():
    """Says how long the jobs take, those of seconds aside."""
    command = "`ddis cost --config FILE` (a file with all these settings)"
    if len(FILES) == 1 and not CHANGES:
        command = f"`ddis cost --config {shlex.quote(str(FILES[0]))}`"
    targets = workflow.dag_settings.targets or ["all"]
    told = hours_left(study, WORK, targets, command)
    if told:
        logger.info(told)


@cache
def prepare():
    """Makes this process the only one at work on the study, and mends what would stop its jobs."""
    try:
        check_folders(study, Step("study"))
        own(study.folder)
    except InputError as error:
        # An exception of an input function would be told with its traceback.
        logger.error(str(error))
        sys.exit(1)
    mend_times()


def mend_times():
    """Gives files with times in the future, from a clock that was wrong, the present one: they would be newer than all that is
    made from them, which Snakemake refuses."""
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
    """Cancels Slurm jobs that a Snakemake which was killed has left: this one submits them anew."""
    name = SLURM_NAME.read_text(encoding="utf-8") if SLURM_NAME.exists() else ""
    if left := slurm_jobs(name):
        logger.warning(
            f"Cancelling Slurm jobs of an earlier Snakemake: {' '.join(left)}"
        )
        subprocess.run(["scancel", *left])
        deadline = time.monotonic() + CANCEL_SECONDS
        while slurm_jobs(name) and time.monotonic() < deadline:
            time.sleep(1)
    # All Slurm jobs of this Snakemake have one name, which nothing public tells; other executors have none.
    SLURM_NAME.write_text(
        getattr(workflow.scheduler._executor, "run_uuid", ""), encoding="utf-8"
    )


def slurm_jobs(name):
    """Ids of this user's Slurm jobs of a name that wait or run."""
    if not name or not shutil.which("squeue"):
        return []
    command = ["squeue", "--me", "--noheader", "--format=%i", f"--name={name}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


if workflow.is_main_process:
    try:
        check_links(study.folder)
    except InputError as error:
        raise WorkflowError(str(error))
