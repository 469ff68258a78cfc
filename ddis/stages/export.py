"""`ddis export`: a run's samples as files that the evaluation of a benchmark reads. By hand, no stage of a study."""

import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ddis.config import Case, Study
from ddis.data.hdf5 import read_attributes
from ddis.data.posteriorbench import case_name, task_of, write_generated
from ddis.data.store import PAIRS
from ddis.errors import InputError
from ddis.stages.layout import data_path, model_folder
from ddis.stages.tables import read_case

_log = logging.getLogger(__name__)

FILE = "generated.h5"  # of a case, in a folder of its name
NAMED = 3  # cases that a refusal names


def run(study: Study, problem: str, observation: str, run: str, percent: str, format: str, output: Path) -> None:
    """Writes CASE/generated.h5 in `output` for every test field; fields that failed are left out, with a warning.

    Cases have the numbers of the release that the test split was imported from, or are counted from 1. Raises InputError for a
    case that is not in the study, for a problem that is no task of the benchmark, and for a folder with other cases, which the
    evaluation would count among these.
    """
    case = Case(problem, observation, run, percent)
    study.run_for(case)
    pde = study.problems[problem].pde
    task, samples = task_of(pde), read_case(study, case)
    first = (read_attributes(data_path(study, problem, "test"), PAIRS).get("source") or {}).get("start", 0)
    told = {
        "dataset": pde,
        "method": samples.attributes["method"],
        "observed_field": task.solution,
        "checkpoint": ", ".join(str(model_folder(study, problem, name)) for name in study.models_of(run, percent)),
        "profile": str(study.folder / "config.yaml"),
        "seed": study.seed,
    }
    names = {case_name(pde, first + int(field)): field for field in np.flatnonzero(~samples.failed)}
    refuse_others(output, names)
    for name, field in names.items():
        write_generated(output / name / FILE, task.coefficient, samples.coefficient[field], {"case_id": name, **told})
    if samples.failed.any():
        _log.warning("%d test fields are not finite and are left out", samples.failed.sum())
    _log.info("%s: samples of %d cases for %s", output, (~samples.failed).sum(), format)


def refuse_others(output: Path, names: Collection[str]) -> None:
    """Raises InputError if the folder has a case that is none of these."""
    others = {path.parent.name for path in output.glob(f"*/{FILE}")} - set(names)
    if others:
        first = sorted(others, key=lambda name: (len(name), name))[:NAMED]  # of numbered cases, the smallest numbers
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise InputError(
            f"{output}: has cases that this run does not write ({', '.join(first)}{more}); accepted: an empty folder"
        )
