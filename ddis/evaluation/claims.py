"""Claims, published and our own, and what a study found: yes, no, or inconclusive.

A claim holds if the whole interval of its figure lies on the claimed side, and does not if the whole interval lies on the other;
anything between, or a figure that the study's runs, problems or fractions do not give, is inconclusive. Figures without an
interval (seconds, counts) decide by themselves. An interval of n fields is about as wide as n^-1/2, so that an inconclusive claim
would be decided by n (width / distance to the bound)^2 fields, width being that of the interval's side towards the bound, if the
figure stayed where it is. Published figures are for 128 x 128 nodes, 500 observations and larger networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ddis.evaluation.bootstrap import DRAWS, ENOUGH, LEVEL, SEED, bca
from ddis.evaluation.published import PUBLISHED, PUBLISHED_PHYSICS
from ddis.evaluation.scores import Scores, common, find
from ddis.evaluation.text import Table, known
from ddis.evaluation.verdicts import UNKNOWN, Figure, claim_row, not_asked, words
from ddis.text import pipe_table, with_interval

COLUMNS = ["claim", "formula", "published", "ours", "low", "high", "verdict", "n_fields", "fields_to_decide"]
_NUMBERS = ("published", "ours", "low", "high", "n_fields", "fields_to_decide")
TYPES = {name: float if name in _NUMBERS else str for name in COLUMNS}
HOW = (
    f"{100 * LEVEL:g} % interval of a paired bootstrap over the test fields, {DRAWS} draws, seed {SEED}: BCa, of fewer than "
    f"{ENOUGH} fields by expanded percentiles"
)
_BENCHMARK = ("poisson", "helmholtz", "navier-stokes")


def claim_rows(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Rows of the table, per observation the published claims, then per problem with exact samples those of this project."""
    rows = []
    for observation in dict.fromkeys(s.attributes["observation"] for s in scores):
        group = [s for s in scores if s.attributes["observation"] == observation]
        rows += [row | {"claim": f"{observation}: {row['claim']}"} for row in _published(group)]
        limited = {s.attributes["problem"] for s in group if s.attributes["method"] == "exact"}
        for problem in dict.fromkeys(s.attributes["problem"] for s in group):
            runs = [s for s in group if s.attributes["problem"] == problem]
            own = _physics(runs) + _roughness(runs)
            own += _near_the_limit(runs) + _against_ddis(runs) if problem in limited else []
            rows += [row | {"claim": f"{problem}, {observation}: {row['claim']}"} for row in own]
    return rows


def to_markdown(rows: Table) -> str:
    """The table for reading: claims that the study has a figure for, and how many others there are."""
    body = [
        [
            row["claim"],
            row["formula"],
            "" if row["published"] is None else f"{row['published']:.3g}",
            with_interval(row, "ours", "low", "high"),
            words(row),
        ]
        for row in known(rows, "ours")
    ]
    how = f"In brackets: {HOW}; a claim is decided if it lies on one side of the bound."
    parts = [how, pipe_table(["claim", "formula", "published", "ours", "verdict"], body)] if body else []
    return "\n\n".join([*parts, *not_asked(rows)]) + "\n"


def _published(group: Sequence[Scores]) -> list[dict[str, Any]]:
    """ddis against fundps: the averages that the paper states, and what its table gives for each problem alone."""
    rows = []
    for what, figure, percent, stated in (("l2", 0, 100, 11.0), ("E_s", 1, 100, 54.0), ("l2", 0, 1, 40.0)):
        name = "l2_sample" if what == "l2" else "spectral"
        gain = f"100 (1 - {name}(ddis) / {name}(fundps)) at {percent} %"
        rows.append(
            claim_row(
                f"{what} of ddis {stated:g} % below that of the joint model at {percent} % of the pairs, mean over problems",
                f"mean over {', '.join(_BENCHMARK)} of {gain} >= {stated:g}",
                _gain(group, name, percent, _BENCHMARK),
                stated,
                at_least=stated,
            )
        )
        for problem in _BENCHMARK:
            ours, theirs = (PUBLISHED[problem, method, percent][figure] for method in ("ddis", "fundps"))
            found = _gain(group, name, percent, (problem,))
            if ours is not None and theirs is not None and found.found[0] is not None:
                value = round(100 * (1 - ours / theirs), 1)
                claim = f"{what} of ddis {value:g} % below that of the joint model at {percent} % of the pairs, {problem}"
                rows.append(claim_row(claim, f"{gain} >= {value:g}", found, value, at_least=value))
    return rows


def _gain(group: Sequence[Scores], name: str, percent: float, problems: Sequence[str]) -> Figure:
    """100 (1 - ddis / fundps), averaged over problems; unknown if a run is missing. Problems carry the benchmark's names."""
    means: list[np.ndarray] = []
    for problem in problems:
        where = {"problem": problem, "pde": problem, "percent": percent}
        pair = find(group, method="ddis", operator="fno", **where), find(group, method="fundps", **where)
        if pair[0] is None or pair[1] is None:
            return UNKNOWN
        fields, _ = common(pair[0], pair[1])
        if not fields.any():
            return UNKNOWN
        means += [getattr(run, name)[fields].mean(axis=1) for run in pair if run is not None]
    return _figure(lambda *m: 100 * (1 - sum(a / b for a, b in zip(m[::2], m[1::2], strict=True)) / len(problems)), *means)


def _physics(group: Sequence[Scores]) -> list[dict[str, Any]]:
    """Runs at 1 % whose operator was trained with the equation too, against the same method without."""
    rows = []
    for run in group:
        method, operator, pde = (run.attributes[name] for name in ("method", "operator", "pde"))
        if run.attributes["percent"] != 1 or not str(operator).startswith("physics"):
            continue
        stated = PUBLISHED_PHYSICS.get(pde) if (method, pde) == ("ddis", run.attributes["problem"]) else None
        published = None if stated is None else round(100 * (1 - stated / PUBLISHED[pde, "ddis", 1][0]), 1)
        rows.append(
            claim_row(
                f"the equation in the operator's loss helps {method} at 1 % of the pairs ({run.attributes['run']})",
                f"100 (1 - l2_sample({method}, {operator}) / l2_sample({method})) at 1 % >= 0",
                _ratio(_of_samples, run, find(group, method=method, operator="fno", percent=1), lambda a, b: 100 * (1 - a / b)),
                published,
                at_least=0.0,
            )
        )
    return rows


def _roughness(group: Sequence[Scores]) -> list[dict[str, Any]]:
    """Whether samples of ddis are as rough as the truth."""
    run = find(group, method="ddis", operator="fno", percent=100)
    if run is None or not run.finite.any():
        return []
    return [
        claim_row(
            "samples of ddis are not too smooth",
            "power(ddis, 100 %) / power(truth) >= 0.9, geometric mean over wavenumbers of a quarter of a cycle per node and more",
            _figure(np.exp, run.fine[run.finite].mean(axis=1)),
            at_least=0.9,
        )
    ]


def _near_the_limit(group: Sequence[Scores]) -> list[dict[str, Any]]:
    """How near to exact samples ddis-gn is, for one problem and observation."""
    exact, joint = find(group, method="exact"), find(group, method="fundps", percent=100)
    solver = find(group, method="ddis-gn", operator="solver")
    best, few = (find(group, method="ddis-gn", operator="fno", percent=percent) for percent in (100, 1))
    return [
        claim_row(
            "mean of ddis-gn with the solver within 1.05 of the limit",
            "l2_mean(ddis-gn, solver) / l2_mean(exact) <= 1.05",
            _ratio(_of_mean, solver, exact),
            at_most=1.05,
        ),
        claim_row(
            "spectra of ddis-gn with the solver within 1.10 of the limit",
            "spectral(ddis-gn, solver) / spectral(exact) <= 1.1",
            _ratio(_of_spectrum, solver, exact),
            at_most=1.1,
        ),
        claim_row(
            "ddis-gn with the solver is calibrated",
            "coverage90(ddis-gn, solver) in [0.87, 0.93]",
            _coverage(solver),
            at_least=0.87,
            at_most=0.93,
        ),
        claim_row(
            "mean of ddis-gn at 100 % of the pairs within 1.25 of the limit",
            "l2_mean(ddis-gn, 100 %) / l2_mean(exact) <= 1.25",
            _ratio(_of_mean, best, exact),
            at_most=1.25,
        ),
        claim_row(
            "ddis-gn at 100 % of the pairs is not overconfident",
            "coverage90(ddis-gn, 100 %) >= 0.85",
            _coverage(best),
            at_least=0.85,
        ),
        claim_row(
            "ddis-gn with 1 % of the pairs is better than fundps with all",
            "l2_mean(ddis-gn, 1 %) / l2_mean(fundps, 100 %) <= 1, at the same K",
            _ratio(_of_mean, few, joint),
            at_most=1.0,
        ),
    ]


def _against_ddis(group: Sequence[Scores]) -> list[dict[str, Any]]:
    """Cost and error of ddis-gn against ddis, and whether ddis is stable, for one problem and observation."""
    best, ddis = (find(group, method=method, operator="fno", percent=100) for method in ("ddis-gn", "ddis"))
    return [
        claim_row(
            "ddis-gn takes at most 1/20 of the seconds of ddis",
            "seconds_per_sample(ddis-gn, 100 %) / seconds_per_sample(ddis, 100 %) <= 0.05",
            _cost(best, ddis, "seconds_per_sample"),
            at_most=0.05,
        ),
        claim_row(
            "ddis-gn takes at most 1/20 of the evaluations of ddis",
            "evaluations(ddis-gn, 100 %) / evaluations(ddis, 100 %) <= 0.05, of prior and operator together",
            _cost(best, ddis, "prior_evaluations", "operator_evaluations"),
            at_most=0.05,
        ),
        claim_row(
            "samples of ddis-gn are better than those of ddis",
            "l2_sample(ddis-gn, 100 %) / l2_sample(ddis, 100 %) <= 1",
            _ratio(_of_samples, best, ddis),
            at_most=1.0,
        ),
        claim_row(
            "ddis does not diverge",
            "largest l2_sample(ddis) of all fields and percents <= 100; infinite if a field failed",
            _largest([run for run in group if run.attributes["method"] == "ddis"]),
            at_most=100,
        ),
    ]


def _of_mean(run: Scores, k: int) -> np.ndarray:
    return run.l2_mean[:, k - 1]


def _of_samples(run: Scores, k: int) -> np.ndarray:
    return run.l2_sample.mean(axis=1)


def _of_spectrum(run: Scores, k: int) -> np.ndarray:
    return run.spectral[:, :k].mean(axis=1)


def _figure(function: Callable[..., Any], *values: np.ndarray) -> Figure:
    return Figure(bca(function, *values), min(map(len, values)))


def _ratio(
    values: Callable[[Scores, int], np.ndarray],
    run: Scores | None,
    other: Scores | None,
    function: Callable[..., Any] = np.divide,
) -> Figure:
    """Ratio, or another function, of the means over the fields that failed in neither."""
    if run is None or other is None:
        return UNKNOWN
    fields, k = common(run, other)
    return _figure(function, *(values(part, k)[fields] for part in (run, other))) if fields.any() else UNKNOWN


def _coverage(run: Scores | None) -> Figure:
    if run is None or run.calibration is None:
        return UNKNOWN
    return _figure(lambda mean: mean, run.calibration.covered90)


def _largest(runs: Sequence[Scores]) -> Figure:
    if not runs:
        return UNKNOWN
    return Figure((max(float(run.l2_sample.max()) if run.finite.all() else np.inf for run in runs), None, None))


def _cost(run: Scores | None, other: Scores | None, *names: str) -> Figure:
    if run is None or other is None:
        return UNKNOWN
    ours, theirs = (sum(part.attributes[name] for name in names) for part in (run, other))
    return Figure((ours / theirs, None, None)) if theirs else UNKNOWN
