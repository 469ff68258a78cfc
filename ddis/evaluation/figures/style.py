"""How all figures look: colours and labels of runs, axes, and the bytes of a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from itertools import cycle
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import AutoLocator, LogLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from ddis.data.store import Samples
from ddis.data.subsets import percent_name

TRUTH = "black"
LIMIT = "#6b6b6b"
_KNOWN = {
    "ddis": "#0072B2",
    "ddis-gn": "#009E73",
    "fundps": "#D55E00",
    "diffusionpde": "#CC79A7",
    "joint-daps": "#E69F00",
    "ddis-dps": "#56B4E9",
    "exact": LIMIT,
    "tikhonov": "#882255",
    "prior-mean": "#999933",
}
_OTHERS = ("#332288", "#44AA99", "#AA4466", "#661100", "#6699CC", "#DDCC77")
_DASHES = ("-", "--", ":", "-.")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


# Those of the user must not show in the figures. The back end is none of their business, and setting it would load it.
_DEFAULTS: Any = {key: value for key, value in dict.items(rcParamsDefault) if not key.startswith("backend")}


def drawing(changes: Any = MappingProxyType({})) -> AbstractContextManager[None]:
    """Matplotlib as it comes, with STYLE and changes to it, whatever the user's matplotlibrc says; theirs is back afterwards."""
    return rc_context({**_DEFAULTS, **STYLE, **changes})


def drawable(text: str) -> str:
    """A text from elsewhere, with its dollars as they stand if they enclose no mathematics that can be drawn."""
    try:
        if "$" in text:
            MathTextParser("path").parse(text)
    except ValueError:
        return text.replace("$", r"\$")
    return text


def run_colours(runs: Sequence[str]) -> dict[str, str]:
    """A colour per run name, told apart by colour-blind readers: the methods' own first, then others in the given order."""
    others = cycle(_OTHERS)
    return {run: _KNOWN[run] if run in _KNOWN else next(others) for run in dict.fromkeys(runs)}


def run_label(samples: Samples) -> str:
    """`run, percent %`, and the run alone where it uses no pairs (`exact`, `prior-mean`, the solver as operator)."""
    run, percent = samples.attributes["run"], percent_name(samples.attributes["percent"])
    return str(run) if samples.attributes.get("pairs") is None else f"{run}, {percent} %"


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG; the same figure always gives the same bytes, on whatever desktop."""
    buffer = BytesIO()
    with drawing():
        figure.set_dpi(dpi)
        for ax in figure.axes:
            ax.spines[:].set_in_layout(False)  # they end where the axes do, and are slow to measure
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # `savefig` draws all twice, once for the layout
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        picture.save(buffer, "PNG", dpi=(dpi, dpi), compress_level=3)  # more effort makes it 6 % smaller
    return buffer.getvalue()


def small_png(figure: Figure, most: int = 300_000) -> bytes:
    """The figure as PNG of at most so many bytes: with 256 colours where need be, and as fine as that allows."""
    png = to_png(figure)
    for dpi in (150, 120, 100, 80, 60):
        if len(png) <= most:
            break
        with Image.open(BytesIO(to_png(figure, dpi))) as picture, BytesIO() as buffer:
            few = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            few.save(buffer, "PNG", optimize=True)
            png = buffer.getvalue()
    return png


def setting(samples: Samples) -> str:
    known, nodes = samples.attributes, samples.spaces[0].grid
    return f"{known['problem']}, {nodes} nodes, {samples.observations} observations"


def dashes(runs: Sequence[Samples]) -> list[str]:
    """A line style per run, by percent of pairs: solid for the most, then more and more broken."""
    percents = sorted({float(samples.attributes["percent"]) for samples in runs}, reverse=True)
    return [_DASHES[percents.index(float(samples.attributes["percent"])) % len(_DASHES)] for samples in runs]


def wide(values: NDArray[Any]) -> bool:
    """Whether values differ so much that a linear axis would hide the small ones; NaN is no value."""
    values = values[~np.isnan(values)]
    return bool(len(values) and values.min() > 0 and values.max() > 20 * values.min())


def plain_ticks(ax: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    """Logarithmic axes labelled 1, 2, 5, 10 ... in plain numbers, more densely on short ones; at least two numbers.

    An axis with numbers below 0.001, or of more than five digits, has powers of ten.
    """
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        if axis.get_scale() == "log" and which in (name, "both"):
            low, high = sorted(axis.get_view_interval())
            decades = np.log10(high / low)
            marks = (1, 1.2, 1.5, 2, 3, 5, 7) if decades < 0.6 else (1, 2, 5) if decades < 2.5 else (1,)
            locators = LogLocator(subs=marks), AutoLocator()
            ticks = [[tick for tick in locator.tick_values(low, high) if low <= tick <= high] for locator in locators]
            chosen = int(len(ticks[0]) < 2)
            axis.set_major_locator(locators[chosen])
            shown = ticks[chosen]
            axis.set_major_formatter(power_of_ten if any(not 0.0009 < tick < 99999 for tick in shown) else plain_number)
            axis.set_minor_locator(NullLocator())


def plain_number(value: float, _: float = 0) -> str:
    """Digits; where they would be many, a power of ten."""
    text = f"{value:g}"
    return power_of_ten(value) if "e" in text else text


def power_of_ten(value: float, _: float = 0) -> str:
    """Such as 10⁵ or 2×10⁻⁴."""
    factor, exponent = f"{value:e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if float(factor) == 1 else f"{float(factor):g}×{power}"


def panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 3.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.remove()
    return figure, axes


def field_colours(*fields: NDArray[Any]) -> dict[str, Any]:
    """Colours of fields that share them: about zero where there are both signs, sequential ones where there is one."""
    low, high = (float(limit) for limit in (min(map(np.min, fields)), max(map(np.max, fields))))
    if low < 0 < high:
        top = max(-low, high)
        return {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    return {"cmap": "viridis", "vmin": low, "vmax": high}
