import json
import os
import re
import sys
import tempfile
from functools import wraps
from pathlib import Path

from snakemake.exceptions import WorkflowError

from ddis.config import Case, Study
from ddis.errors import InputError
from ddis.stages.common import gpu_is_there
from ddis.stages.needs import memory_mb, minutes
from ddis.stages.records import (
    asked_steps,
    check_places,
    check_steps,
    inputs_of,
    outputs_of,
    paper_steps,
    steps,
    tuning_steps,
)
from ddis.stages.stale import work
from ddis.steps import Step

# A configuration of the user's own is taken as it is, never mixed with the default study; `--config` changes either. Snakemake's
# own reading is not used: it takes the last of two equal keys, `on` for a truth value, and 007 for a number.
FILES = workflow.overwrite_configfiles or ["config/config.yaml"]
CHANGES = workflow.config_settings.config_args or []
try:
    study = Study.read(FILES, CHANGES)
    check_places(study)
    # A job on a cluster reads this file too, and does what it was submitted for.
    WORK = work(study) if workflow.is_main_process else {}
except InputError as error:
    raise WorkflowError(str(error))

# The `ddis` beside this Snakemake, also when its environment is not activated.
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
)

# A training in several processes is started by torchrun, which passes signals on to them; here it then waits almost as long as
# the slurm profile does.
PROCESSES = study.training_processes
LAUNCHER = "ddis"
if PROCESSES > 1:
    LAUNCHER = (
        f"env OMP_NUM_THREADS={study.threads} TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110"
        f" torchrun --standalone --nproc-per-node {PROCESSES} -m ddis"
    )

# `logged FILE COMMAND ...` shows the command's output and keeps it in FILE. A signal to all processes (Ctrl-C, Slurm's time
# limit) reaches the command, which stops and says so; the shell and tee wait for it.
shell.prefix(
    "set -euo pipefail; trap : INT TERM; "
    'logged() {{ local log=$1; shift; "$@" 2>&1 | (trap \'\' INT TERM; exec tee "$log"); }}; '
    f'ddis_train() {{{{ {LAUNCHER} train "$@"; }}}}; '
)

# One GPU per job. `local_gpu` holds jobs back on this machine alone: they take its first GPU in turn. On a cluster `gpu` is
# what is asked for, and the profile lifts the limit on `local_gpu`.
GPU = int(study.device != "cpu")
LOCAL_GPU = int(GPU and gpu_is_there())
workflow.global_resources.setdefault("local_gpu", 1)

SETTINGS = json.dumps(study.resolved())
AGAIN = {
    path
    for step in [*steps(study), *asked_steps(study)]
    if step.label in WORK
    for path in outputs_of(study, step)
}
MARKS = tempfile.TemporaryDirectory(prefix="ddis-")
CASE = ("problem", "observation", "run", "percent")
PERCENT = r"\d+(\.\d+)?"


def one_of(names):
    """Regular expression of one of the names."""
    return "|".join(re.escape(name) for name in names)


def arguments(wildcards, **more):
    """The arguments of a stage, by name, from the wildcards of its job."""
    return {k: v for k, v in wildcards.items() if k != "study"} | more


def case_of(wildcards):
    """The case that a sampling job belongs to."""
    return Case(**{key: getattr(wildcards, key) for key in CASE})


def told(function):
    """The function of the wildcards; of what it refuses the message alone is told, where Snakemake adds a traceback."""

    @wraps(function)
    def asked(*given, **named):
        try:
            return function(*given, **named)
        except InputError as error:
            logger.error(str(error))
            sys.exit(1)

    return asked


def reads(stage, **more):
    """Function of the wildcards: the files that a job reads, and a mark if it is to be run for a reason of its own.

    Times of files decide nothing: one that stays as it is counts as `ancient`.
    """

    @told
    def files(wildcards):
        begin()
        step = Step(stage, arguments(wildcards, **more))
        paths = inputs_of(study, step)
        if AGAIN & set(paths):
            return [
                str(path) if path in AGAIN else ancient(str(path)) for path in paths
            ]
        return mark(step) + [ancient(str(path)) for path in paths]

    return files


def mark(step):
    """A new file outside the study, with the reason why a step is to be run as its name, for Snakemake to show; or none.

    Each is in a folder of its own: Snakemake looks once into a folder, and takes what comes later for missing.
    """
    if step.label not in WORK:
        return []
    folder = Path(MARKS.name, str(list(WORK).index(step.label)))
    folder.mkdir(exist_ok=True)
    path = folder / WORK[step.label].replace(os.sep, "|")[:200]
    path.touch()
    return [str(path)]


def memory(stage, **more):
    """Function of the wildcards: memory in MB that a job asks for; twice that after a failure, which may have been for want of it."""
    return told(
        lambda wildcards, attempt: min(attempt, 2)
        * memory_mb(study, stage, **arguments(wildcards, **more))
    )


def duration(stage, **more):
    """Function of the wildcards: time in minutes that a job asks for."""
    return told(lambda wildcards: minutes(study, stage, **arguments(wildcards, **more)))


@told
def shards(wildcards):
    """Marks of a run's sampling jobs, if there are several."""
    case = case_of(wildcards)
    jobs = range(len(study.shards_of(case)))
    mark = f"{study.folder}/work/{case.problem}/{case.observation}/{case.run}-{case.percent}/{{}}.drawn"
    return [mark.format(shard) for shard in jobs] if len(jobs) > 1 else []


def outputs(step):
    """Patterns of the files of a step that has no wildcard but the study."""
    names = [path.relative_to(study.folder) for path in outputs_of(study, step)]
    return [f"results/{{study}}/{name}" for name in names]
