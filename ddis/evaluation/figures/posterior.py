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

    nodes: places of the nodes along an axis [S]; names: of coefficient and solution, with their units.
    """
    half = float(nodes[1]) / 2
    low, high = -half, float(nodes[-1]) + half
    first = samples[:2]
    shared = field_colours(mean, first)
    fields: list[tuple[str, Array, dict[str, Any]]] = [
        (f"mean of {len(samples)} samples", mean, shared),
        ("standard deviation", std, {"cmap": "magma", "vmin": 0.0}),
        *((f"sample {number}", field, shared) for number, field in enumerate(first, start=1)),
    ]
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(14, 2.9), layout="constrained")
        axes = figure.subplots(1, 5, sharex=True, sharey=True)
        colours = field_colours(data.value)
        seen = axes[0].scatter(data.x, data.y, c=data.value, s=min(18.0, 4000 / len(data)), **colours)
        axes[0].set(title=f"{len(data)} observations", facecolor="0.92", ylabel="$y$")
        figure.colorbar(seen, ax=axes[0], label=names[1], format=plain_number)
        for ax, (text, field, scale) in zip(axes[1:], fields, strict=True):
            image = ax.imshow(field.T, origin="lower", extent=(low, high, low, high), interpolation="nearest", **scale)
            ax.set_title(text)
            figure.colorbar(image, ax=ax, label=names[0], format=plain_number)
        for ax in axes:
            ax.set(xlabel="$x$", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlim=(low, high), ylim=(low, high), aspect="equal")
        figure.suptitle(title, fontsize=9)
    return figure
