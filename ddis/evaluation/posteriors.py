"""The table of distances: every run's samples against the reference posterior of the same fields, and the floor.

Samples are compared with the second half of the reference's draws; draws of the first half, as many as a run has samples, are at
the distance that no method can be below but by chance: the floor. References of others are few draws of unequal weights: samples
are compared with all of them, and the floor, which is of halves, is a bound from above. Fields whose reference has not converged,
or whose samples failed, are left out. The five distances are those of `ddis.evaluation.distances`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddis.data.references import References
from ddis.data.store import Samples
from ddis.data.subsets import percent_name
from ddis.evaluation import metrics
from ddis.evaluation.bootstrap import HOW, estimate
from ddis.evaluation.distances import Distances, distances
from ddis.evaluation.published import POSTERIORS
from ddis.grid import Space
from ddis.text import csv_text, latex_table, pipe_table, tex, with_interval

METRICS = tuple(Distances.__dataclass_fields__)
COLUMNS = ["problem", "observation", "run", "percent", "n_fields", "n_samples"]
COLUMNS += [column for name in METRICS for column in (name, f"{name}_low", f"{name}_high")] + ["minutes"]
FLOOR = "floor"
_HEAD = ["problem", "observation", "run", "% pairs", "fields", "K", "mean", "std", "MMD", "SWD", "spectrum", "min"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """The reference of one problem and observation, ready to be compared with; space: of the coefficient."""

    problem: str
    observation: str
    references: References
    space: Space

    def run_row(self, samples: Samples) -> dict[str, Any]:
        """The row of a file of samples."""
        drawn = samples.coefficient[: len(self.references.mean)]
        kept = self.references.converged & ~samples.failed[: len(drawn)]
        run, percent = (samples.attributes[name] for name in ("run", "percent"))
        start = 0 if self.references.attributes["kind"] == "imported" else self.half
        return self._row(run, percent_name(percent), drawn, kept, start) | {
            "minutes": 100 / 60 * samples.attributes["seconds_per_sample"]
        }

    def floor_row(self, count: int) -> dict[str, Any]:
        """The row of `count` draws of the first half."""
        draws, half = self.references.coefficient, self.half
        places = (np.linspace(0, half - 1, min(count, half)).round() + 0.5) / half
        cumulated = self.references.weight[:, :half].cumsum(axis=1, dtype=np.float64)
        chosen = [np.searchsorted(row / row[-1], places) for row in cumulated]
        drawn = np.stack([draws[field, row] for field, row in enumerate(chosen)])
        return self._row(FLOOR, None, drawn, self.references.converged, half)

    @property
    def half(self) -> int:
        """Draws in each half."""
        return self.references.coefficient.shape[1] // 2

    @cached_property
    def unit(self) -> float | Array:
        """Standard deviation of the coefficient over the training split; of each of several channels over all draws."""
        if self.space.channels == 1:
            return float(self.references.attributes["coefficient_std"])
        draws = self.references.coefficient
        return np.asarray(draws.std(axis=(0, 1, *range(3, draws.ndim)), dtype=np.float64))

    def _row(self, run: str, percent: str | None, drawn: np.ndarray, kept: NDArray[np.bool_], start: int) -> dict[str, Any]:
        """Distances of drawn [n, K, *shape] to the reference's draws from number `start` on."""
        draws, weights = self.references.coefficient[:, start:], self.references.weight[:, start:]
        parts = [distances(drawn[f], draws[f], weights[f], self.unit, self.space) for f in np.flatnonzero(kept)]
        row: dict[str, Any] = {"problem": self.problem, "observation": self.observation, "run": run, "percent": percent}
        row |= {"n_fields": len(parts), "n_samples": drawn.shape[1], "minutes": None}
        for name in METRICS:
            # One sample has no spread, and the error of a mean of 0 is no share of it.
            known = bool(parts) and (name != "std" or drawn.shape[1] > 1) and (name != "mean" or self.references.mean.any())
            found = estimate(lambda x: x, [getattr(part, name) for part in parts]) if known else (None,) * 3
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
        return row

    def limit(self, samples: Samples) -> Array | None:
        """Relative l2 errors [n] in percent of the reference's mean, which no estimate beats on average.

        None unless the reference is of the stated noise, and has converged for all fields of the samples.
        """
        truth, references = samples.coefficient_true, self.references
        if references.attributes["likelihood"] != "gaussian" or len(references.mean) < len(truth):
            return None
        if not references.converged.all():
            return None
        return np.asarray(100 * metrics.relative_l2(references.mean, truth, samples.spaces[0]))


def published_rows(problem: str, pde: str) -> list[dict[str, Any]]:
    """What PosteriorBench found for a problem of its own, to stand below ours."""
    empty = dict.fromkeys(COLUMNS)
    found = [(name, numbers) for (of, name), numbers in POSTERIORS.items() if of == pde]
    keys = (*METRICS, "minutes")
    return [empty | {"problem": problem, "run": f"{name}, published"} | dict(zip(keys, n, strict=True)) for name, n in found]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """All columns of the rows, which are in the order of the table."""
    return csv_text(rows, COLUMNS)


def to_markdown(rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """For reading, with intervals; `notes` are sentences on the references."""
    if not rows:
        return " ".join(["No run is on an observation whose reference posterior has converged for any field.", *notes]) + "\n"
    return "\n\n".join([pipe_table(_HEAD, map(_cells, rows)), caption(notes), ""])


def to_latex(rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    body = [[tex(cell) for cell in _cells(row)] for row in rows]
    return latex_table(_HEAD, body, caption(notes), "tab:posterior", [False] * 3 + [True] * 9)


def caption(notes: Sequence[str]) -> str:
    """How the table is read."""
    own = (
        "Distances of K samples to the reference posterior, mean over the test fields whose reference has converged: relative l2 "
        "errors of the point-wise mean and standard deviation, maximum mean discrepancy, sliced Wasserstein distance in standard "
        "deviations of the coefficient, error of the power spectrum (arXiv 2609.20794). min: minutes for 100 samples. floor: as "
        f"many draws of the reference itself, against others of its draws. In brackets: {HOW}."
    )
    return " ".join([own, *notes])


def _cells(row: Mapping[str, Any]) -> list[str]:
    names = ("problem", "observation", "run", "percent", "n_fields", "n_samples")
    numbers = [with_interval(row, name, f"{name}_low", f"{name}_high") for name in METRICS]
    minutes = "" if row["minutes"] is None else f"{row['minutes']:.2g}"
    return ["" if row[name] is None else str(row[name]) for name in names] + [*numbers, minutes]
