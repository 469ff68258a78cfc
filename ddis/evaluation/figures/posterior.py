"""The posterior of a user's own observations: what was seen, the mean, the standard deviation, and two samples."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddis.data.observations import Observations
from ddis.evaluation.figures.style import drawing, field_colours, plain_number

Array = NDArray[Any]


def picture(
    data: Observations, mean: Array, std: Array, samples: Array, nodes: Array, names: tuple[str, str], title: str
) -> Figure:
    """Observed points, mean and std [S, S], and the first two of the samples [K, S, S]; mean and samples share their colours.

    Observed values of the coefficient are squares on the mean, in the same colours.
    nodes: places of the nodes along an axis [S]; names: of coefficient and solution, with their units.
    """
    half = float(nodes[1]) / 2
    low, high = -half, float(nodes[-1]) + half
    first = samples[:2]
    solution, own = (data.value[rows] for rows in (~data.of, data.of))
    shared = field_colours(mean, first, *[own] * bool(own.size))
    fields: list[tuple[str, Array, dict[str, Any]]] = [
        (f"mean of {len(samples)} samples" + f", {own.size} values" * bool(own.size), mean, shared),
        ("standard deviation", std, {"cmap": "magma", "vmin": 0.0}),
        *((f"sample {number}", field, shared) for number, field in enumerate(first, start=1)),
    ]
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(14, 2.9), layout="constrained")
        axes = figure.subplots(1, 5, sharex=True, sharey=True)
        if solution.size:
            colours, size = field_colours(solution), min(18.0, 4000 / solution.size)
            seen = axes[0].scatter(data.x[~data.of], data.y[~data.of], c=solution, s=size, **colours)
            figure.colorbar(seen, ax=axes[0], label=names[1], format=plain_number)
        what = "values of the solution" if own.size else "observations"
        axes[0].set(title=f"{solution.size} {what}", facecolor="0.92", ylabel="$y$")
        for ax, (text, field, scale) in zip(axes[1:], fields, strict=True):
            image = ax.imshow(field.T, origin="lower", extent=(low, high, low, high), interpolation="nearest", **scale)
            ax.set_title(text)
            figure.colorbar(image, ax=ax, label=names[0], format=plain_number)
        if own.size:
            marks = {"marker": "s", "s": min(24.0, 4000 / own.size), "edgecolors": "black", "linewidths": 0.8, "clip_on": False}
            axes[1].scatter(data.x[data.of], data.y[data.of], c=own, **marks, **shared)
        for ax in axes:
            ax.set(xlabel="$x$", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlim=(low, high), ylim=(low, high), aspect="equal")
        figure.suptitle(title, fontsize=9)
    return figure
