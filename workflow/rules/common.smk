import json
import os
import re
import sys

from snakemake.exceptions import WorkflowError

from ddis.config import Case, Study
from ddis.errors import InputError
from ddis.provenance import file_digest
from ddis.sampling.methods import load_method
from ddis.stages import PACKAGE, code
from ddis.stages.common import resolve_device
from ddis.stages.layout import TABLES, figure_names
from ddis.stages.needs import memory_mb, minutes
from ddis.stages.records import outputs_of, steps

# A configuration of the user's own is taken as it is, never mixed with the default study; `--config` changes either. Snakemake's
# own reading is not used: it takes the last of two equal keys, `on` for a truth value, and 007 for a number.
try:
    study = Study.read(
        workflow.overwrite_configfiles or ["config/config.yaml"],
        workflow.config_settings.config_args or [],
    )
except InputError as error:
    raise WorkflowError(str(error))

# The `ddis` beside this Snakemake, also when its environment is not activated; the root is for workflow/environment.yml.
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
    DDIS_ROOT=str(workflow.basedir),
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
LOCAL_GPU = int(GPU and resolve_device("auto").type == "cuda")
workflow.global_resources.setdefault("local_gpu", 1)

SETTINGS = json.dumps(study.resolved())
CASE = ("problem", "observation", "run", "percent")
PERCENT = r"\d+(\.\d+)?"
TUNED = [case for case in study.cases() if case.run in study.tuning.candidates]


def one_of(names):
    """Regular expression of one of the names."""
    return "|".join(re.escape(name) for name in names)


def what(wildcards, **more):
    """The arguments of a stage, by name, from the wildcards of its job."""
    return {k: v for k, v in wildcards.items() if k != "study"} | more


def case_of(wildcards):
    """The case that a sampling job belongs to."""
    return Case(**{key: getattr(wildcards, key) for key in CASE})


def settings(stage, **more):
    """Function of the wildcards: digest of all settings that a stage's result depends on."""
    return lambda wildcards: study.digest(stage, **what(wildcards, **more))


def memory(stage, **more):
    """Function of the wildcards: memory in MB that a job asks for; twice that after a failure, which may have been for want of it."""
    return lambda wildcards, attempt: min(attempt, 2) * memory_mb(
        study, stage, **what(wildcards, **more)
    )


def duration(stage, **more):
    """Function of the wildcards: time in minutes that a job asks for."""
    return lambda wildcards: minutes(study, stage, **what(wildcards, **more))


def problem_code(stage):
    """Function of the wildcards: digest of the code of a stage, with that of its problem."""
    return lambda wildcards: code(stage, type(study.make_problem(wildcards.problem)))


def run_code(stage):
    """Function of the wildcards: digest of the code of a stage, with that of its problem and its method."""
    return lambda wildcards: code(
        stage,
        type(study.make_problem(wildcards.problem)),
        load_method(study.runs[wildcards.run].method),
    )


def models(cases):
    """Folders of the models that the runs of the cases need."""
    return sorted(
        {
            f"{study.folder}/models/{case.problem}/{model}"
            for case in cases
            for model in study.models_of(case.run, case.percent)
        }
    )


def networks(wildcards):
    """Files of the networks that a run needs."""
    folders = models([case_of(wildcards)])
    return [
        f"{folder}/{name}"
        for folder in folders
        for name in ("weights.safetensors", "model.json")
    ]


def model_files(name):
    """One file of every model of the study."""
    return [f"{folder}/{name}" for folder in models(study.cases())]


def prior_files(name):
    """One file of every coefficient prior of the study."""
    return [
        f"{folder}/{name}"
        for folder in models(study.cases())
        if os.path.basename(folder) == "prior"
    ]


def shards(wildcards):
    """Marks of a run's sampling jobs, if there are several."""
    case = case_of(wildcards)
    jobs = range(len(study.shards_of(case)))
    mark = f"{study.folder}/work/{case.problem}/{case.observation}/{case.run}-{case.percent}/{{}}.drawn"
    return [mark.format(shard) for shard in jobs] if len(jobs) > 1 else []


def case_files(folder, suffix, cases):
    """One file per case."""
    return [
        f"{study.folder}/{folder}/{case.problem}/{case.observation}/{case.run}-{case.percent}{suffix}"
        for case in cases
    ]


def tuning_figures():
    """Names of the figures of `ddis tuning`."""
    return dict.fromkeys(
        f"tuning-{c.problem}-{c.observation}-{c.run}.png" for c in TUNED
    )
