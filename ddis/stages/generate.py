"""Stage `generate`: one split of a problem's dataset, made by its solver or taken from the user's own file."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddis.config import Study
from ddis.data.generate import Request, generate_file
from ddis.data.hdf5 import read_attributes
from ddis.data.residual import SOLVED_FINER, discretisation_error
from ddis.data.store import PAIRS, PairsWriter, Shapes, open_pairs, pairs_writer
from ddis.errors import InputError
from ddis.models.normalisation import statistics
from ddis.pde.base import Problem
from ddis.progress import Progress
from ddis.stages.common import stage
from ddis.stages.layout import data_path

Finish = Callable[[PairsWriter], None]  # what is told of a file before it is complete

_log = logging.getLogger(__name__)


def run(study: Study, problem: str, split: str) -> None:
    """Writes data/<problem>/<split>.h5."""
    with stage(study, "generate", problem=problem, split=split) as (tracker, _):
        configuration = study.digest("generate", problem=problem, split=split)
        path, count = data_path(study, problem, split), getattr(study.data, split)
        attributes = {"problem": problem, "configuration": configuration, "split": split}
        source, finish = study.data_file(problem, split), partial(describe, study.make_problem(problem), split)
        if source is None:
            settings = study.problems[problem]
            request = Request(settings.pde, settings.parameters, study.data.resolution, count, study.seed, split)
            written = _generate(path, request, attributes, study.data.workers, f"{problem} {split}", finish)
        else:
            written = _take(source, path, study.make_problem(problem).shapes(study.data.resolution), count, attributes, finish)
        tracker.tag("ddis.data_digest", written["digest"])
        tracker.metrics({"fields": count} | ({"residual": written["residual"]} if written["residual"] is not None else {}))


def describe(problem: Problem, split: str, writer: PairsWriter) -> None:
    """Stores what other stages would need torch for, or all fields.

    Mean and standard deviation of the training split's fields: of most, a sampler needs no more. Of the test split the error of
    the solver, for the dataset card.
    """
    if split == "train":
        writer.attributes["statistics"] = statistics(problem, writer.dataset)
    if split == "test":
        coefficient = torch.from_numpy(writer.dataset("coefficient")[:SOLVED_FINER])
        writer.attributes["solver_error"] = discretisation_error(problem, coefficient)


def run_file(request: Request, output: Path, workers: int) -> None:
    """Writes a dataset outside a study; a file that is there already is kept if it is the same, and is an error if not."""
    configuration = request.digest()
    if output.exists():
        if read_attributes(output, PAIRS).get("configuration") != configuration:
            raise InputError(f"{output} exists and holds something else; choose another name")
        _log.info("%s is there already, and is kept", output)
        return
    attributes = {"problem": request.pde, "configuration": configuration}
    written = _generate(output, request, attributes, workers, str(output))
    _log.info("%s: %d fields, residual %s, SHA-256 %s", output, request.count, written["residual"], written["digest"])


def _generate(
    path: Path, request: Request, attributes: dict[str, Any], workers: int, label: str, finish: Finish = lambda writer: None
) -> dict[str, Any]:
    progress = Progress(label, request.count, unit="fields")
    written = generate_file(path, request, attributes["configuration"], attributes, workers, progress.update, finish)
    progress.finish()
    return written


def _take(source: Path, path: Path, shapes: Shapes, count: int, attributes: dict[str, Any], finish: Finish) -> dict[str, Any]:
    """Copies the first `count` pairs of a file, after checking all of it."""
    with open_pairs(source, shapes, count) as pairs:
        pairs.verify()
        kept = {key: value for key, value in pairs.attributes.items() if key in ("pde", "parameters", "seed", "residual")}
        origin = {**pairs.attributes.get("source", {}), "file": str(source), "digest": pairs.attributes["digest"]}
        more = {"source": origin, "warnings": pairs.attributes.get("warnings", []), **attributes}
        with pairs_writer(path, count, shapes, {**kept, **more}) as writer:
            for coefficient, solution in pairs.blocks(np.arange(count)):
                writer.append(coefficient, solution)
            finish(writer)
    return {**writer.attributes, "digest": writer.digest}
