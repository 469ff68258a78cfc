"""Mean and standard deviation of every run's samples, beside those of the reference posterior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddis.data.references import References
from ddis.data.store import Samples
from ddis.evaluation.figures.grids import colour_bar, draw_field, proportions
from ddis.evaluation.figures.style import drawing, field_colours, run_label, setting

Array = NDArray[np.float64]


def moments(runs: Sequence[Samples], references: References, field: int) -> Figure:
    """Of one test field, coefficients of one channel: the truth, then mean above standard deviation of reference and runs.

    All means share their colours with the truth, all standard deviations theirs. A reference that has not converged is not shown;
    runs of one sample have no standard deviation.
    """
    truth, grid = runs[0].coefficient_true[field].astype(np.float64), runs[0].spaces[0].grid
    shown = {"reference": (references.mean[field], references.std[field])} if references.converged[field] else {}
    shown |= {run_label(samples): _of_samples(samples.coefficient[field].astype(np.float64)) for samples in runs}
    widths = [std for _, std in shown.values() if std is not None and np.isfinite(std).all()]
    # The middle one sets the scale: the worst would wash out the others.
    top = float(np.median([np.quantile(std, 0.995) for std in widths])) if widths else 1.0
    scales = field_colours(truth), {"cmap": "magma", "vmin": 0.0, "vmax": 1.2 * top}
    width, height = proportions(grid)
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(1.55 * width * (len(shown) + 1) + 1.6, 3.9 * height), layout="constrained")
        axes = figure.subplots(2, len(shown) + 1, squeeze=False)
        bars = [draw_field(axes[0, 0], truth, scales[0], grid), None]
        axes[0, 0].set_title("truth a")
        for ax in axes[:, 1:].flat:
            ax.set_axis_off()
        axes[1, 0].set_axis_off()
        for column, (label, pair) in zip(axes.T[1:], shown.items(), strict=True):
            column[0].set_title("\n".join(label.split(", ")))
            for row, values in enumerate(pair):
                if values is not None:
                    column[row].set_axis_on()
                    bars[row] = draw_field(column[row], values, scales[row], grid)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
        for row, name, extend in ((0, "mean", "both"), (1, "standard deviation", "max")):
            colour_bar(figure, bars[row], list(axes[row]), f"{name} of a", pad=0.01, extend=extend)
        figure.suptitle(f"Test field {field}, {setting(runs[0])}", fontsize=9)
    return figure


def _of_samples(members: Array) -> tuple[Array, Array | None]:
    return members.mean(axis=0), members.std(axis=0, ddof=1) if len(members) > 1 else None
