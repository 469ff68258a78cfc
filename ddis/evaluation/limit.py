"""The distance to the limit: every run against exact posterior samples, paired on the same fields and at the same K.

The mean of K exact samples is sqrt(1 + 1/K) worse than the closed-form mean, so K-sample means are compared with K-sample means;
a run with fewer samples than `exact`, with that many of its first. What a run loses is split by replacing the parts of the exact
posterior one by one, in squared error, so that the contributions add:

    prior      ddis-gn through the solver     against  exact samples
    operator   ddis-gn through the network    against  ddis-gn through the solver
    sampler    the run                        against  ddis-gn with the same networks

ddis-gn is exact for an exact prior and a linear operator, so the errors of prior and operator alone separate it from the limit.
Methods on other networks (joint priors) or none (tikhonov, prior-mean) share no part with ddis-gn: their loss is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ddis.data.subsets import percent_name
from ddis.evaluation.bootstrap import HOW, estimate
from ddis.evaluation.scores import Scores, common, find
from ddis.text import pipe_table, with_interval

_CASE = ["problem", "observation", "run", "percent", "n_fields", "n_samples"]
RATIO_COLUMNS = [
    *_CASE,
    *("l2_mean_ratio", "l2_mean_ratio_low", "l2_mean_ratio_high"),
    *("spectral_ratio", "spectral_ratio_low", "spectral_ratio_high"),
]
SPLIT_COLUMNS = [*_CASE, "part", "l2_squared", "l2_squared_low", "l2_squared_high"]
LIMIT, TOTAL = "limit", "total"
JOINT, NOT_LEARNT = "joint prior and sampler", "no learnt prior"


def ratio_rows(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """One row per run on a problem with exact samples: mean l2 of K-sample means and mean E_s, as ratios to those of `exact`."""
    rows = []
    for run, exact in _pairs(scores):
        fields, k = common(run, exact)
        if fields.any():
            means = [s.l2_mean[fields, k - 1] for s in (run, exact)]
            spectra = [s.spectral[fields, :k].mean(axis=1) for s in (run, exact)]
            row = _case(run, fields, k) | _named("l2_mean_ratio", estimate(np.divide, *means))
            rows.append(row | _named("spectral_ratio", estimate(np.divide, *spectra)))
    return rows


def split_rows(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """One row per run and part: mean squared relative l2 error of the K-sample mean, in (percent)², that the part contributes.

    Parts that cannot be told apart, because the study lacks the run between them, are one, named after both. The last row of a
    run is the total, their sum. A part may be negative, by chance or because two errors cancel.
    """
    rows = []
    for run, exact in _pairs(scores):
        chain = _chain(run, exact, scores)
        fields, k = common(*(s for _, s in chain))
        if not fields.any():
            continue
        squares = [np.square(s.l2_mean[fields, k - 1]) for _, s in chain]
        parts = [squares[0], *(later - earlier for earlier, later in pairwise(squares))]
        for name, values in zip([*(name for name, _ in chain), TOTAL], [*parts, squares[-1]], strict=True):
            rows.append(_case(run, fields, k) | {"part": name} | _named("l2_squared", estimate(lambda mean: mean, values)))
    return rows


def to_markdown(ratios: Sequence[dict[str, Any]], splits: Sequence[dict[str, Any]]) -> str:
    """Both tables for reading, the split with one line per run."""
    if not ratios:
        return "No run of this study has a closed-form posterior to be compared with.\n"
    head = ["problem", "observation", "run", "% pairs", "fields", "K"]
    ratio_body = [
        [*_cells(row), *(with_interval(row, name, f"{name}_low", f"{name}_high") for name in ("l2_mean_ratio", "spectral_ratio"))]
        for row in ratios
    ]
    parts = [part for part in dict.fromkeys(row["part"] for row in splits) if part != TOTAL]
    lines: dict[tuple[str, ...], dict[str, float]] = {}
    for row in splits:
        lines.setdefault(tuple(_cells(row)), {})[row["part"]] = row["l2_squared"]
    split_body = [
        [*case, *(f"{line[part]:.1f}" if part in line else "" for part in [*parts, TOTAL]), f"{np.sqrt(line[TOTAL]):.1f}"]
        for case, line in lines.items()
    ]
    return "\n\n".join(
        [
            "Error of the mean of K samples and spectral error of samples, as ratios to those of exact samples at the same K, on "
            f"the same fields. In brackets: {HOW}.",
            pipe_table([*head, "l2 of the mean / exact", "E_s / exact"], ratio_body),
            "Mean squared relative l2 error of the mean of K samples, in squared percent, split into what the limit (K exact "
            "samples), prior, operator and sampler contribute; the last column is the root of the total, in percent.",
            pipe_table([*head, *parts, TOTAL, "root, %"], split_body),
            "",
        ]
    )


def _pairs(scores: Sequence[Scores]) -> list[tuple[Scores, Scores]]:
    """Every run but `exact`, with the exact samples of its problem and observation, where there are any."""
    pairs = []
    for run in scores:
        exact = find(scores, method="exact", **_where(run))
        if exact is not None and run is not exact:
            pairs.append((run, exact))
    return pairs


def _chain(run: Scores, exact: Scores, scores: Sequence[Scores]) -> list[tuple[str, Scores]]:
    """Runs from the limit to this one, each with the name of the part by which it differs from the one before."""
    prior, operator = run.attributes["prior"], run.attributes["operator"]
    if prior != "coefficient":
        return [(LIMIT, exact), (JOINT if prior else NOT_LEARNT, run)]
    where = {"method": "ddis-gn", **_where(run)}
    known = [("prior", find(scores, operator="solver", **where))]
    if operator not in (None, "", "solver"):
        known.append(("operator", find(scores, operator=operator, percent=run.attributes["percent"], **where)))
    if all(step is not run for _, step in known):
        known.append(("sampler", run))
    chain, waiting = [(LIMIT, exact)], []
    for name, step in known:
        waiting.append(name)
        if step is not None:
            chain.append((" and ".join(waiting), step))
            waiting = []
    return chain


def _where(run: Scores) -> dict[str, str]:
    return {name: run.attributes[name] for name in ("problem", "observation")}


def _case(run: Scores, fields: Any, k: int) -> dict[str, Any]:
    percent = percent_name(run.attributes["percent"])
    return {**_where(run), "run": run.attributes["run"], "percent": percent, "n_fields": int(fields.sum()), "n_samples": k}


def _named(name: str, value: tuple[float, float | None, float | None]) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), value, strict=True))


def _cells(row: dict[str, Any]) -> list[str]:
    return [f"`{row['run']}`" if name == "run" else str(row[name]) for name in _CASE]
