"""`ddis import`: pairs of others, checked and written as one of our files. No stage of a study; a study names the result."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddis.data.hdf5 import read_attributes
from ddis.data.posteriorbench import Cases
from ddis.data.public import Field, Input, check_shapes, group_inputs
from ddis.data.references import REFERENCES, References, write_references
from ddis.data.residual import EquationFit, equation_fit, inadmissible, moved_sample_axis, swapped, transposed
from ddis.data.store import PAIRS, pairs_writer
from ddis.errors import InputError
from ddis.files import write_text
from ddis.grid import Grid
from ddis.observe.listed import listing
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.progress import Progress
from ddis.provenance import input_digest
from ddis.versions import STAGES

_log = logging.getLogger(__name__)

CHECKED_FIELDS = 8
# What two good schemes may differ by, relative l2: the public Darcy files, with faces of another kind, do by a few percent.
_OTHER_SCHEME = 0.1
_OTHER_TASK = 0.5
_BLOCK_NODES = 1 << 22


def run_file(
    pde: str, parameters: dict[str, Any], paths: list[Path], output: Path, start: int = 0, count: int | None = None
) -> None:
    """Writes the fields start, ..., start + count - 1 (default: all) of the inputs to `output`. Raises InputError.

    Eight fields of every input are checked against the equation; all are checked to be finite.
    """
    write_pairs(pde, parameters, group_inputs(paths), output, start, count)


def run_cases(
    pde: str, parameters: dict[str, Any], paths: list[Path], output: Path, start: int = 0, count: int | None = None
) -> None:
    """As `run_file`, of cases of PosteriorBench; NAME-sensors.csv and NAME-references.h5 are written beside NAME.h5."""
    if len(paths) != 1:
        raise InputError(f"{len(paths)} inputs; accepted: one folder of cases")
    cases = Cases(pde, paths[0])
    sensors, references = (output.with_name(f"{output.stem}-{name}") for name in ("sensors.csv", "references.h5"))
    rows = range(len(cases))[max(start, 0) : None if count is None else max(start + count, 0)]
    if not rows:
        raise InputError(f"start {start}, count {count}; accepted: some of the {len(cases)} cases of {cases}")
    places, (draws, weights) = cases.sensors(rows), cases.posterior(rows)
    write_pairs(pde, parameters, [cases], output, start, count)
    pairs = read_attributes(output, PAIRS)["digest"]
    if sensors.exists() and references.exists() and read_attributes(references, REFERENCES).get("pairs") == pairs:
        _log.info("%s is there already, and is kept", references)
        return
    write_text(sensors, listing(places))
    ess = 1 / (weights**2).sum(axis=1)
    mean = np.einsum("nk,nk...->n...", weights, draws)
    std = np.sqrt(np.einsum("nk,nk...->n...", weights, (draws - mean[:, None]) ** 2))
    told = {"kind": "imported", "likelihood": "mean-absolute", "r_hat": [1.0] * len(rows), "ess": ess.tolist()}
    told |= {"converged": [True] * len(rows), "seconds": 0.0, "pairs": pairs}
    write_references(references, References(draws, weights, mean, std, told))
    spread = float(np.std(np.concatenate([u for _, u in blocks([cases], pde, rows.start, rows.stop)])))
    text = "%s, %s: %d observed values a case, %d draws worth %.0f on average; std(u) of the cases %.4g"
    _log.info(text, sensors, references, places.shape[1], draws.shape[1], ess.mean(), spread)


def write_pairs(
    pde: str, parameters: dict[str, Any], inputs: Sequence[Input | Cases], output: Path, start: int, count: int | None
) -> None:
    """Writes a part of the fields of all inputs together. Raises InputError."""
    problem = make_problem(pde, parameters)
    if start < 0 or (count is not None and count < 1):
        raise InputError(f"start {start}, count {count}; accepted: start from 0, count from 1")
    sources = [{"file": str(path), "sha256": input_digest(path)} for item in inputs for path in item.files]
    made = problem.parameters.model_dump(mode="json")
    what = {"pde": pde, "parameters": made, "files": [s["sha256"] for s in sources], "start": start, "count": count}
    what |= {"version": STAGES["import"]}
    configuration = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    if output.exists():
        if read_attributes(output, PAIRS).get("configuration") != configuration:
            raise InputError(f"{output} exists and holds something else; choose another name")
        _log.info("%s is there already, and is kept", output)
        return
    counts, size, found = inspect(problem, pde, inputs)
    available = sum(counts) - start
    wanted = available if count is None else count
    if available < max(wanted, 1):
        raise InputError(f"{', '.join(map(str, inputs))}: {sum(counts)} fields, asked for {wanted} from number {start} on")
    warnings = [message for item, f in zip(inputs, found, strict=True) if (message := warning(item, f))]
    residual = max(f.largest_residual for f in found)
    attributes = {
        "problem": pde,
        "pde": pde,
        "parameters": made,
        "configuration": configuration,
        "residual": residual,
        "source": {"kind": "imported", "files": sources, "start": start},
        "warnings": warnings,
    }
    progress = Progress(str(output), wanted, unit="fields")
    with pairs_writer(output, wanted, problem.shapes(size), attributes) as writer:
        for coefficient, solution in blocks(inputs, pde, start, start + wanted):
            numbers = range(start + writer.written, start + writer.written + len(coefficient))
            _check_admissible(problem, str(output), torch.from_numpy(coefficient.astype(np.float64)), numbers)
            _check_outside(problem.solution_space(size).grid, str(output), solution, numbers)
            writer.append(coefficient, solution)
            progress.update(writer.written)
    progress.finish()
    for message in warnings:
        _log.warning("warning: %s", message)
    checked = sum(f.fields for f in found)
    text = "%s: %d fields, largest relative residual %.2g of %d checked, SHA-256 %s"
    _log.info(text, output, wanted, residual, checked, writer.digest)


def _check_admissible(problem: Problem, label: str, coefficient: Tensor, numbers: Sequence[int]) -> None:
    bad = inadmissible(problem, coefficient)
    if bad is not None:
        low, high = float(coefficient[bad].min()), float(coefficient[bad].max())
        raise InputError(
            f"{label}: coefficient {numbers[bad]}, with values from {low:.4g} to {high:.4g}, is none of {problem.equation}, "
            f"{problem.distribution}; nothing was written; set the problem's parameters with --set, or choose another problem"
        )


def _check_outside(grid: Grid, label: str, solution: np.ndarray, numbers: Sequence[int]) -> None:
    bad = np.flatnonzero(solution[..., ~grid.nodes].any(axis=tuple(range(1, solution.ndim - len(grid.shape) + 1))))
    if bad.size:
        raise InputError(
            f"{label}: solution {numbers[bad[0]]} is not 0 outside the domain; accepted: 0 there; nothing was written"
        )


def inspect(problem: Problem, pde: str, inputs: Sequence[Input | Cases]) -> tuple[list[int], int, list[EquationFit]]:
    """Number of fields of each input, nodes per side, and how each fits the equation. Raises InputError."""
    counts, sizes, found = [], [], []
    for item in inputs:
        with item.open(pde) as (a, u):
            sizes.append(check_shapes(a, u, problem))
            problem.check(sizes[-1])
            counts.append(a.shape[0])
            if sizes[-1] != sizes[0]:
                raise InputError(f"{item} has {sizes[-1]} nodes per side, {inputs[0]} {sizes[0]}; files must agree")
            found.append(_check_equation(problem, item, a, u))
    return counts, sizes[0], found


def _check_equation(problem: Problem, item: Input | Cases, a: Field, u: Field) -> EquationFit:
    count, size = a.shape[:2]
    chosen = np.unique(np.linspace(0, count - 1, CHECKED_FIELDS).astype(int))
    fields = _read(a, chosen), _read(u, chosen)
    if inadmissible(problem, fields[0]) is not None and (wrong := swapped(problem, *fields)):
        raise InputError(f"{item}: {wrong}; put it right and import again; nothing was written")
    _check_admissible(problem, a.label, fields[0], chosen.tolist())
    _check_outside(problem.solution_space(a.shape[-1]).grid, u.label, fields[1].numpy(), chosen.tolist())
    try:
        result = equation_fit(problem, *fields)
        wrong = None if result.small else swapped(problem, *fields) or transposed(problem, *fields)
        if not (result.small or wrong) and count == size:
            everything = np.arange(count)
            wrong = moved_sample_axis(problem, _read(a, everything), _read(u, everything), chosen.tolist())
    except ValueError as error:
        raise InputError(f"{item}: {error}; nothing was written") from error
    if isinstance(item, Cases) and result.difference > _OTHER_TASK:
        wrong = f"its solutions are none of {problem.equation}, off by {100 * result.difference:.2g} %: another task or version"
    if wrong:
        raise InputError(f"{item}: {wrong}; put it right and import again; nothing was written")
    return result


def _read(field: Field, indices: np.ndarray) -> Tensor:
    values = np.concatenate([field.rows(int(i), int(i) + 1) for i in indices]).astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{field.label} has NaN or infinite values; nothing was written")
    return torch.from_numpy(values)


def warning(item: Input | Cases, found: EquationFit) -> str | None:
    """What a reader must know of pairs that do not solve the discrete equation of their problem; None if they do."""
    if found.small:
        return None
    reason = "they were computed with another discretisation"
    if found.difference > _OTHER_SCHEME:
        reason += " or other parameters, or coefficients and solutions do not belong together"
    return (
        f"{item}: relative residual {found.residual:.2g}, where float32 storage explains {found.rounding:.2g}; the solutions "
        f"differ by {100 * found.difference:.2g} % from this package's solver (medians of {found.fields} fields): {reason}"
    )


def blocks(inputs: Sequence[Input | Cases], pde: str, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(coefficient, solution) [n, *shape] of the fields start, ..., stop - 1 of all inputs together, in bounded memory."""
    offset = 0
    for item in inputs:
        with item.open(pde) as (a, u):
            first, last = max(0, start - offset), min(a.shape[0], stop - offset)
            step = max(1, _BLOCK_NODES // max(map(math.prod, (a.shape[1:], u.shape[1:]))))
            for i in range(first, last, step):
                j = min(i + step, last)
                yield a.rows(i, j), u.rows(i, j)
            offset += a.shape[0]
