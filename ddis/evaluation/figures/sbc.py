"""Whether the truth could be one of the samples: shares of ranks beside uniform ones, and expected coverage, run by run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddis.data.store import Samples
from ddis.evaluation.calibration import MIN_SAMPLES
from ddis.evaluation.figures.style import TRUTH, drawing, run_label, setting
from ddis.evaluation.sbc import QUANTITIES, Verdict, verdict
from ddis.evaluation.uniformity import LEVEL

_COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#E69F00", "#CC79A7", "#D55E00", TRUTH)


def differences(runs: Sequence[Samples]) -> Figure:
    """Share of the fields whose truth ranks below a share of the samples, minus that share, a panel per run with K of 4 or more.

    One line for each quantity, that of TARP in black. Grey: outside is a fault, at a level for all quantities and ranks together.
    """
    judged = [(samples, found) for samples in runs if (found := verdict(samples)) is not None]
    columns = min(4, max(1, len(judged)))
    rows = max(1, -(-len(judged) // columns))
    with drawing():
        figure = Figure(figsize=(max(6.0, 2.5 * columns), 1.25 + 2.0 * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
        for ax, (samples, found) in zip(axes, judged, strict=False):
            _panel(ax, found)
            ax.set_title(f"{run_label(samples)}: {found.word}")
        for ax in axes[len(judged) :]:
            ax.remove()
        if judged:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(QUANTITIES), fontsize=8)
            figure.supylabel("share of the fields - uniform", fontsize=9)
        grey = f"grey: {100 * (1 - LEVEL):g} % of exact posteriors, all lines at once"
        title = f"Simulation-based calibration, {setting(runs[0])}\n{grey}"
        figure.suptitle(title if judged else f"No run has {MIN_SAMPLES} samples of two fields: no calibration", fontsize=9)
    return figure


def _panel(ax: Axes, found: Verdict) -> None:
    test, places = found.test, [0.0, *found.test.uniform, 1.0]
    low, high = ([0.0, *(edge - test.uniform), 0.0] for edge in test.band)
    ax.fill_between(places, low, high, color="0.35", alpha=0.25, lw=0)
    for name, colour in zip(QUANTITIES, _COLOURS, strict=True):
        for number, shares in enumerate(test.shares.get(name, ())):
            label = "TARP" if name == "distance" else name
            heights = [0.0, *(shares - test.uniform), 0.0]
            ax.plot(places, heights, color=colour, lw=1.6 if colour == TRUTH else 1.0, label=label if number == 0 else None)
    ax.axhline(0, color=TRUTH, lw=0.6)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xlabel="share of samples below")
