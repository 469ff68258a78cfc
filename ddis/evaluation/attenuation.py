"""How strong guidance is with few pairs: norms of gradients by share of the pairs, as a table, a figure and claims.

Joint: the misfit's gradient goes through the denoiser of (coefficient, solution). Decoupled: through the operator, and in DPS
through the coefficient's denoiser besides. "exact" is decoupled, with the optimal denoiser and the solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddis.evaluation import claims
from ddis.evaluation.bootstrap import bca
from ddis.evaluation.text import Table, grouped, known, numbers, where
from ddis.evaluation.verdicts import Figure, claim_row
from ddis.text import pipe_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

COLUMNS = ["problem", "observation", "model", "through", "percent", "pairs", "sigma", "field", "norm", "norm_solution", "cosine"]
_NAMES = ("problem", "observation", "model", "through")
TYPES = {name: str if name in _NAMES else float for name in COLUMNS}
LABELS = {
    ("joint", "denoiser"): "joint",
    ("decoupled", "denoiser"): "decoupled, DPS",
    ("decoupled", "operator"): "decoupled, DAPS",
}
_COLOURS = {"joint": "#D55E00", "decoupled, DPS": "#56B4E9", "decoupled, DAPS": "#0072B2"}
TITLE = "Guidance attenuation"
NEEDS = "the methods `ddis` and `fundps` at two or more `fractions`"
SHOWS = """Norm of the guidance gradient in the coefficient: of the root mean square misfit of the observed values, on
normalised fields, at a noise level s, ± standard error over the fields; in brackets the mean cosine with the gradient through the
optimal denoiser and the exact solver, where these are known. The noisy field x_t is made from one test field, the values are of
another, so that data and chain disagree. `joint` is differentiated through the joint prior's denoiser at x_t, `decoupled, DPS`
through operator and prior at x_t, `decoupled, DAPS` through the operator alone at the denoiser's output, as `ddis` does."""


def page(table: Table) -> str:
    """Markdown of a problem's measurements: what they are, the table, the claims."""
    first, levels = table[0], _levels(table)
    fields, observation = len(grouped(table, "field")), first["observation"]
    setting = f"{first['problem']}, observation `{observation}`, {fields} test fields."
    body = []
    for label, percent, pairs, rows in _lines(table):
        body.append([label, percent, pairs, *(_cell(where(rows, sigma=s)) for s in levels)])
    head = ["guidance", "share of the pairs", "pairs", *(f"s = {s:g}" for s in levels)]
    shown = pipe_table(head, body, [False] + [True] * (len(head) - 1))
    return "\n\n".join([f"{SHOWS}\n\n{setting}", shown, claims.to_markdown(claim_rows(table)).strip()])


def claim_rows(table: Table) -> list[dict[str, Any]]:
    """What the smallest share of the pairs leaves of the guidance, the geometric mean over the noise levels."""
    percents = _percents(table)
    few, most = (f"{p:g}" for p in (percents[0], percents[-1]))
    kept = {label: _kept(table, *key) for key, label in LABELS.items()}
    formula = f"norm({{0}}, {few} %) / norm({{0}}, {most} %), geometric mean over s"
    rows = [
        claim_row(
            f"guidance of the joint model is attenuated with {few} % of the pairs",
            formula.format("joint") + " <= 0.9",
            _figure(kept["joint"]),
            at_most=0.9,
        )
    ]
    for label in ("decoupled, DPS", "decoupled, DAPS"):
        rows.append(
            claim_row(
                f"guidance of the {label} model is not attenuated with {few} % of the pairs",
                formula.format(label) + " >= 0.9",
                _figure(kept[label]),
                at_least=0.9,
            )
        )
    return rows


def chart(table: Table) -> Picture:
    """Norms, and cosines where they are known, against the share of the pairs; a column for each noise level."""
    from matplotlib.figure import Figure as Picture

    from ddis.evaluation.figures.style import drawing, plain_ticks

    levels, percents = _levels(table), _percents(table)
    kinds = {"norm": "norm of the gradient"}
    if known(table, "cosine"):
        kinds["cosine"] = "cosine with the exact one"
    with drawing():
        figure = Picture(figsize=(2.4 * len(levels) + 0.6, 2.2 * len(kinds) + 0.6), layout="constrained")
        axes = figure.subplots(len(kinds), len(levels), squeeze=False, sharex=True, sharey="row")
        for kind, row in zip(kinds, axes, strict=True):
            row[0].set_ylabel(kinds[kind])
            for ax, s in zip(row, levels, strict=True):
                _curves(ax, where(table, sigma=s), kind)
                if kind == "norm":
                    ax.set(title=f"s = {s:g}", xscale="log", yscale="log")
                    plain_ticks(ax, "y")
                ax.set_xticks(percents, [f"{p:g}" for p in percents])
                ax.minorticks_off()
        for ax in axes[-1]:
            ax.set_xlabel("share of the pairs, %")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _curves(ax: Axes, table: Table, kind: str) -> None:
    """Means and standard errors at one noise level; what is exact is a horizontal line."""
    for (model, through), label in LABELS.items():
        rows, colour = where(table, model=model, through=through), _COLOURS[label]
        parts = [numbers(where(rows, percent=p), kind) for p in _percents(rows)]
        error = [_error(part) for part in parts]
        y = [part.mean() for part in parts]
        ax.errorbar(_percents(rows), y, yerr=error, color=colour, marker="o", ms=4, lw=1.4, capsize=2, label=label)
        exact = where(table, model="exact", through=through)
        if kind == "norm" and model == "decoupled" and exact:
            ax.axhline(numbers(exact, "norm").mean(), color=colour, ls="--", lw=1, label=f"{label}, exact")


def _percents(table: Table) -> list[float]:
    return sorted({float(row["percent"]) for row in known(table, "percent")})


def _lines(table: Table) -> list[tuple[str, str, str, Table]]:
    """Label, share, number of pairs and rows of each line of the table, the exact ones last."""
    found: list[tuple[str, str, str, Table]] = []
    for (model, through), label in LABELS.items():
        own = where(table, model=model, through=through)
        for percent in _percents(own):
            rows = where(own, percent=percent)
            found.append((label, f"{percent:g} %", f"{rows[0]['pairs']:,.0f}", rows))
    for through, label in (("denoiser", "exact, DPS"), ("operator", "exact, DAPS")):
        rows = where(table, model="exact", through=through)
        found += [(label, "", "", rows)] * bool(rows)
    return found


def _levels(table: Table) -> list[float]:
    return sorted({float(row["sigma"]) for row in table}, reverse=True)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean; NaN of one value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan


def _cell(rows: Table) -> str:
    norms, cosines = (numbers(known(rows, name), name) for name in ("norm", "cosine"))
    shown = f"{norms.mean():.3g}" + (f" ± {_error(norms):.1g}" if len(norms) > 1 else "")
    return shown if rows[0]["model"] == "exact" or not len(cosines) else f"{shown} ({cosines.mean():.2f})"


def _kept(table: Table, model: str, through: str) -> list[np.ndarray]:
    """Norms [n] with the fewest pairs, then with the most, for each level in turn."""
    own = sorted(where(table, model=model, through=through), key=lambda row: float(row["field"]))
    percents = _percents(own)
    ends = percents[0], percents[-1]
    return [numbers(where(own, percent=p, sigma=s), "norm") for s in _levels(table) for p in ends]


def _figure(norms: Sequence[np.ndarray]) -> Figure:
    """Geometric mean over the levels of the ratio of means, fewest pairs to most; of one field, which decides nothing, none."""

    def kept(*means: Any) -> Any:
        logs = (np.log(few) - np.log(most) for few, most in zip(means[::2], means[1::2], strict=True))
        return np.exp(2 * sum(logs) / len(means))

    fields = len(norms[0])
    return Figure(bca(kept, *norms) if fields > 1 else (None, None, None), fields)
