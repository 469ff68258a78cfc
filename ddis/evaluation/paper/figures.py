"""The figure of a section's table: errors along its axis as curves, or run by run as bars; published figures as open marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddis.evaluation.figures.style import drawing, panels, plain_ticks, run_colours
from ddis.evaluation.paper.sections import Entry, Section
from ddis.evaluation.paper.tables import MEASURES, Rows, lines, place_name, published

_AXES = {
    "percent": "share of the training pairs, %",
    "values": "observed values of a field",
    "noise": "noise, std(u)",
    "budget": "seconds per sample",
}
_MARK: dict[str, Any] = {"marker": "D", "mfc": "white", "ms": 5, "ls": "none", "zorder": 3}


def chart(section: Section, entries: Sequence[Entry], rows: Rows) -> Figure:
    """Error of single samples in percent, with its standard error over the fields; a panel for each problem."""
    shown = lines(section, entries, rows)
    colours = run_colours([line.label for line in shown])
    problems = section.problems(entries)
    curves = section.across in _AXES and len(section.places(entries)) > 1
    with drawing():
        if curves:
            figure, axes = panels(len(problems))
        else:
            figure = Figure(figsize=(3.2 * len(problems) + 2.2, 0.9 + 0.26 * len(colours)), layout="constrained")
            axes = list(figure.subplots(1, len(problems), squeeze=False, sharey=True).ravel())
        for ax, problem in zip(axes, problems, strict=False):
            own = {label: [e for line in shown if line.label == label for e in line.entries] for label in colours}
            own = {label: [e for e in entries if e.problem == problem] for label, entries in own.items()}
            if curves:
                _curves(ax, section, own, rows, colours)
            else:
                _bars(ax, own, rows, colours)
            ax.set_title(problem)
        if curves:
            axes[0].set_ylabel(_measure())
            handles = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
        else:
            axes[len(problems) // 2].set_xlabel(f"{_measure()}; open marks: published")
    return figure


def _measure() -> str:
    return MEASURES["l2_sample"][0].replace("l2", "relative l²")


def _curves(ax: Axes, section: Section, own: Mapping[str, list[Entry]], rows: Rows, colours: Mapping[str, str]) -> None:
    """What has one place for want of pairs (the exact posterior) is a horizontal line. Only the table has the prior's mean."""
    places = set[float]()
    for label, entries in own.items():
        shown = [e for e in entries if e.method != "prior-mean" and rows[e.key]["l2_sample"] is not None]
        known = [(_place(section, e, rows), e) for e in shown]
        known.sort(key=lambda pair: pair[0])
        if not known:
            continue
        x = [place for place, _ in known]
        y, bars = ([rows[e.key][name] for _, e in known] for name in ("l2_sample", "l2_sample_se"))
        colour = colours[label]
        if len(x) == 1 and rows[known[0][1].key]["pairs"] is None and section.across == "percent":
            ax.axhline(y[0], color=colour, ls="--", lw=1.4, label=label)
            continue
        ax.errorbar(x, y, yerr=[bar or 0 for bar in bars], color=colour, marker="o", ms=4, lw=1.4, capsize=3, label=label)
        paper = [(place, value) for place, e in known if (value := published(e, rows[e.key], "l2_sample")) is not None]
        if paper and section.across == "percent":
            ax.plot(*zip(*paper, strict=True), color=colour, label=f"{label}, published", **_MARK)
        places |= set(x)
    if min(places, default=0) > 0:
        ax.set_xscale("log")
    if section.across != "budget":
        ax.set_xticks(sorted(places), [f"{place:g}" for place in sorted(places)])
        ax.minorticks_off()
    else:
        plain_ticks(ax, "x")
    ax.set(xlabel=_AXES[str(section.across)], ylim=(0, _top(rows, own)))


def _place(section: Section, entry: Entry, rows: Rows) -> float:
    return float(rows[entry.key]["seconds_per_sample"] if section.across == "budget" else section.place(entry))


def _top(rows: Rows, own: Mapping[str, list[Entry]]) -> float | None:
    """Samples that diverged would hide all others; those of no use at all have an error of 140 %."""
    values = [v for entries in own.values() for e in entries if (v := rows[e.key]["l2_sample"]) is not None]
    return 200.0 if max(values, default=0) > 200 else None


def _bars(ax: Axes, own: Mapping[str, list[Entry]], rows: Rows, colours: Mapping[str, str]) -> None:
    for place, (label, entries) in enumerate(own.items()):
        for number, entry in enumerate(entries):
            row, height = rows[entry.key], 0.7 / len(entries)
            value, at = row["l2_sample"], place + height * (number - (len(entries) - 1) / 2)
            if value is None:
                ax.text(0, at, " failed", va="center", fontsize=8)
                continue
            ax.barh(at, value, height, color=colours[label], xerr=row["l2_sample_se"] or 0, capsize=2)
            if len(entries) > 1:
                ax.text(0, at, f" {place_name('percent', float(entry.percent))}", va="center", fontsize=6, color="white")
            if (paper := published(entry, row, "l2_sample")) is not None:
                ax.plot(paper, at, color="black", **_MARK)
    ax.set_yticks(range(len(own)), list(own))
    ax.set_ylim(len(own) - 0.4, -0.6)
    ax.set_xlim(0, _top(rows, own))
    ax.grid(axis="y", visible=False)
