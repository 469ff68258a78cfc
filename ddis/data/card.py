"""The dataset card: what a reader must know of a dataset, as text and as data."""

import hashlib
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ddis.data.hdf5 import blocks, mean_and_std
from ddis.grid import Grid
from ddis.pde.base import Problem
from ddis.text import pipe_table

_HEADINGS = ("equation", "domain", "boundary", "grid", "axes", "units", "distribution", "solver")


def field_statistics(field: Any) -> dict[str, float]:
    """Mean, standard deviation, smallest and largest value of an array or HDF5 dataset of fields, in float64, block by block."""
    mean, std = mean_and_std(field)
    ends = [(float(block.min()), float(block.max())) for block in blocks(field)]
    return {"mean": mean, "std": std, "min": min(low for low, _ in ends), "max": max(high for _, high in ends)}


def field_digests(field: Any) -> list[bytes]:
    """A digest of each field of an array or HDF5 dataset; equal fields have equal digests."""
    rows = (row for block in blocks(field) for row in block)
    return [hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest() for row in rows]


def repetitions(digests: Mapping[str, list[bytes]]) -> list[str]:
    """Warnings for fields that a split holds twice, or that two splits share; from `field_digests` of each split."""
    repeated = {split: len(found) - len(set(found)) for split, found in digests.items()}
    warnings = [f"{count} coefficients of {split} are repetitions" for split, count in repeated.items() if count]
    for first, second in combinations(digests, 2):
        if common := len({*digests[first]} & {*digests[second]}):
            warnings.append(f"{common} coefficients of {second} are also in {first}: its errors are not those of new fields")
    return warnings


def card_data(
    problem: Problem, name: str, pde: str, resolution: int, splits: dict[str, dict[str, Any]], solver_error: float | None
) -> dict[str, Any]:
    """The content of card.yaml. `splits` gives for each split its count, digest, source, residual and statistics."""
    coefficient, solution = problem.spaces(resolution)
    grids = [coefficient.grid] if coefficient.grid.shape == solution.grid.shape else [coefficient.grid, solution.grid]
    return {
        "problem": name,
        "pde": pde,
        "equation": problem.equation,
        "domain": "; ".join(dict.fromkeys(map(_domain, grids))),
        "boundary": problem.boundary,
        "grid": "; ".join(map(_nodes, grids)),
        "axes": "; ".join(map(_axes, grids)),
        "units": problem.units,
        "fields": {"coefficient": problem.coefficient_label, "solution": problem.solution_label},
        "distribution": problem.distribution,
        "parameters": problem.parameters.model_dump(mode="json"),
        "solver": problem.solver or f"{type(problem).__module__}.{type(problem).__qualname__}.solve",
        "solver_error": solver_error,
        "splits": splits,
        "warnings": [],
    }


def _domain(grid: Grid) -> str:
    """Such as "unit square, periodic"."""
    name = "unit square" if grid.lengths == (1.0, 1.0) else " x ".join(f"[0, {length:g}]" for length in grid.lengths)
    if grid.mask is not None:
        name += f", {grid.mask.mean():.0%} of it"
    if any(grid.periodic) and not all(grid.periodic):
        return f"{name}, periodic along axis {grid.periodic.index(True)}"
    return f"{name}, periodic" if all(grid.periodic) else name


def _spacings(grid: Grid) -> list[str]:
    sizes = zip(grid.lengths, grid.shape, grid.periodic, strict=True)
    return [f"{length:g}/{size if wraps else size - 1}" for length, size, wraps in sizes]


def _nodes(grid: Grid) -> str:
    where = " and ".join(dict.fromkeys("not repeated" if wraps else "included" for wraps in grid.periodic))
    return f"{grid} nodes, spacing {', '.join(dict.fromkeys(_spacings(grid)))}, boundary {where}"


def _axes(grid: Grid) -> str:
    names = zip(grid.names, "ij", _spacings(grid), strict=False)
    indices = ", ".join("nij"[: len(grid.shape) + 1])
    return f"[{indices}] is " + ", ".join(f"{axis} = {index} * {spacing}" for axis, index, spacing in names)


def source_text(source: Mapping[str, Any]) -> str:
    """Where the fields of a split come from, in a line."""
    copied = f", by way of {source['file']}" if "file" in source else ""
    if source.get("kind") == "generated":
        return f"generated with seed {source['seed']}, split {source['split']}{copied}"
    files = ", ".join(f"{item['file']} (SHA-256 {item['sha256'][:16]})" for item in source.get("files", []))
    return f"imported from {files}, from field {source.get('start', 0)} on{copied}" if files else f"unknown{copied}"


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    lines = [f"# Dataset {card['problem']}", ""]
    lines += [f"- **{key}**: {card[key]}" for key in _HEADINGS]
    fields = ", ".join(f"`{key}` is {label}" for key, label in card["fields"].items())
    lines.append(f"- **fields**: {fields}")
    if card["solver_error"] is not None:
        how = "by its Fourier series" if "periodic" in card["domain"] else "linearly"
        value = f"{card['solver_error']:.2g} relative l2, against half the spacing with the coefficient interpolated {how}"
        lines.append(f"- **error of the solver**: {value}")
    parameters = ", ".join(f"{key} = {value}" for key, value in card["parameters"].items())
    lines.append(f"- **parameters**: {parameters or 'none'}")
    statistics = ("mean", "std", "min", "max")
    head = ["split", "fields", *(f"{key} {symbol}" for symbol in ("a", "u") for key in statistics), "largest residual"]
    body = []
    for split, info in card["splits"].items():
        values = [f"{info[field][key]:.4g}" for field in ("coefficient", "solution") for key in statistics]
        body.append([split, str(info["count"]), *values, "" if info["residual"] is None else f"{info['residual']:.1e}"])
    lines += ["", pipe_table(head, body)]
    lines += [
        "",
        "The residual of a field is ||r(a, u)|| / ||r(a, 0)||, before the fields are rounded to float32 if generated.",
        "",
    ]
    lines += [f"- {split}: {source_text(info['source'])}; SHA-256 {info['digest']}" for split, info in card["splits"].items()]
    lines += ["", "Files: `train.h5`, `validation.h5`, `test.h5` with `coefficient` and `solution`, float32 [N, S, S].", ""]
    lines += ["![pairs](pairs.png)", "", "## Warnings", ""]
    lines += [f"- {warning}" for warning in card["warnings"]] or ["None."]
    return "\n".join(lines) + "\n"
