"""Error against cost: every method of a study at several budgets, on the same fields, one after the other on one machine.

    python benchmarks/budget.py [--study results/reduced-64] [--tables]

Takes the trained networks, settings and weights of a finished study at 100 % of the pairs, and draws samples of a few of its
test fields with fewer or more steps; weights stay those that were chosen for the study's own number of steps. Costs are per
sample of one field: evaluations as counted in every study, and seconds. What a method computes once for all fields
(a Jacobian) is shared out over the samples drawn here, far fewer than in a study. Writes benchmarks/results/budget.json, and from
it docs/samplers/budget.md and budget.png; --tables only does the latter. Six minutes or more on one core at 64 x 64.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ddis.config import Case, Study
from ddis.data.store import failed_fields
from ddis.evaluation import metrics
from ddis.evaluation.figures.style import TRUTH, drawing, plain_ticks, run_colours, to_png
from ddis.files import atomic_path, write_json, write_text
from ddis.observe.simulated import Simulated
from ddis.provenance import collect
from ddis.sampling.methods import operator_of
from ddis.stages.common import settle
from ddis.stages.sampler import Sampler, observe
from ddis.text import pipe_table

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "budget.json", ROOT / "docs" / "samplers" / "budget.md"
FIELDS, PERCENT = 8, "100"

# Samples per field, and the numbers of steps that are tried. Cheap methods draw more, which costs little and shares the Jacobian.
BUDGETS: dict[str, tuple[int, tuple[int, ...]]] = {
    "ddis": (1, (6, 12, 25, 50)),
    "ddis-gn": (4, (3, 5, 10, 20, 50, 100)),
    "ddis-gn-solver": (4, (3, 5, 10, 20, 50, 100)),
    "ddis-dps": (1, (50, 125, 250)),
    "fundps": (1, (25, 50, 125, 250)),
    "diffusionpde": (1, (50, 125, 250)),
    "joint-daps": (1, (6, 12, 25, 50)),
}
CLOSED_FORM = ("tikhonov", "tikhonov-solver", "exact")
COSTS = {
    "prior_evaluations": "prior evaluations per sample",
    "operator_evaluations": "operator evaluations per sample",
    "seconds_per_sample": "seconds per sample",
}


def settings(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run, changed settings) of every measurement, for the runs that the study has."""
    for run, (samples, steps) in BUDGETS.items():
        if run in study.runs:
            yield from ((run, {"samples": samples, "steps": number}) for number in steps)
    yield from ((run, {"samples": 4}) for run in CLOSED_FORM if run in study.runs)


def measure(sampler: Sampler, observed: Simulated) -> dict[str, Any]:
    """Error and cost of a run."""
    with tempfile.TemporaryDirectory() as folder:
        sampler.draw(observed, "test", Path(folder), range(len(observed.coefficient)))
        result = sampler.collect(observed, Path(folder))
    truth = observed.coefficient[:, None]
    failed = bool(failed_fields(result.coefficient).any())
    errors = 100 * metrics.relative_l2(result.coefficient, truth).mean(axis=1)
    return {
        "l2_sample": None if failed else float(errors.mean()),
        "l2_sample_se": None if failed else metrics.standard_error(errors),
        "spectral": None if failed else float(metrics.spectral_error(result.coefficient, truth).mean()),
        "prior_evaluations": result.prior_evaluations,
        "operator_evaluations": result.operator_evaluations,
        "seconds_per_sample": result.seconds / result.coefficient[:, :, 0, 0].size,
    }


def measure_all(study: Study) -> dict[str, Any]:
    """All measurements of a study's first problem and observation, and what they were made with."""
    problem, observation = next(iter(study.problems)), next(iter(study.observations))
    tried = [(Case(problem, observation, run, PERCENT), changes) for run, changes in settings(study)]
    # All networks are loaded before the first measurement: one that is missing must not end the last of them.
    samplers = [Sampler(study, case, study.run_for(case).model_copy(update=changes)) for case, changes in tried]
    observed, rows = observe(study, tried[0][0], "test", np.arange(FIELDS)), []
    for (case, changes), sampler in zip(tried, samplers, strict=True):
        rows.append({"run": case.run, "operator": operator_of(study.runs[case.run]), **changes, **measure(sampler, observed)})
        print(json.dumps(rows[-1]), flush=True)
    machine = {key: value for key, value in collect({}, None).items() if key in ("versions", "python", "device", "git_commit")}
    return {
        "study": study.study,
        "problem": problem,
        "resolution": study.data.resolution,
        "observations": study.observed(problem, observation),
        "fields": FIELDS,
        "threads": study.threads,
        **machine,
        "rows": rows,
    }


def page(result: Mapping[str, Any]) -> str:
    """docs/samplers/budget.md."""
    head = ["run", "steps", "K", "l2 of a sample, %", "E_s", "prior evaluations", "operator evaluations", "s per sample"]
    side = result["resolution"]
    setting = f"{result['problem']}, {side} x {side} nodes, {result['observations']} observations, {result['fields']} test fields"
    return "\n\n".join(
        [
            "# Error against cost",
            f"Written by `python benchmarks/budget.py` with the networks of the study `{result['study']}` at {PERCENT} % of the "
            f"pairs: {setting}, threads: {result['threads']}, {result['device']}. Costs are per sample of one field. The "
            "Jacobian of `ddis-gn`, `tikhonov` and `exact` is shared out over the fields and samples drawn here; a study draws "
            "more of them, and each then carries less of it. Weights are those of the study, chosen for its own number of steps.",
            "![Error against cost](budget.png)",
            pipe_table(head, (cells(row) for row in result["rows"])),
            "",
        ]
    )


def cells(row: Mapping[str, Any]) -> list[str]:
    failed = row["l2_sample"] is None
    errors = ["not finite", ""] if failed else [f"{row['l2_sample']:.1f} ± {row['l2_sample_se']:.1f}", f"{row['spectral']:.3f}"]
    costs = (f"{row[name]:.3g}" if row[name] < 1000 else f"{row[name]:.0f}" for name in COSTS)
    return [f"`{row['run']}`", str(row.get("steps", "")), str(row["samples"]), *errors, *costs]


def plot(result: Mapping[str, Any]) -> Figure:
    """l2 of a sample against each cost, one line per run; what costs nothing of a kind is not in that panel."""
    rows: Sequence[Mapping[str, Any]] = result["rows"]
    colours = run_colours([row["run"] for row in rows])
    with drawing():
        figure = Figure(figsize=(10.6, 4.2), layout="constrained")
        axes = figure.subplots(1, len(COSTS), sharey=True)
        for ax, (cost, label) in zip(axes, COSTS.items(), strict=True):
            for run, group in groupby(rows, key=lambda row: row["run"]):
                points = [(row[cost], row["l2_sample"]) for row in group if row["l2_sample"] is not None]
                if run == "exact":
                    ax.axhline(points[0][1], color=TRUTH, ls="--", lw=1.2, label="exact samples: the limit")
                elif any(x > 0 for x, _ in points):
                    ax.plot(*zip(*points, strict=True), color=colours[run], marker="o", ms=4, lw=1.4, label=run)
            ax.set(xscale="log", yscale="log", xlabel=label)
            ax.set_ylim(top=min(200, ax.get_ylim()[1]))
            plain_ticks(ax)
        axes[0].set_ylabel("relative $l^2$ error of a sample, %")
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
        side = result["resolution"]
        figure.suptitle(
            f"{result['problem']}, {side} x {side} nodes, {result['observations']} observations, {result['fields']} test fields",
            fontsize=9,
        )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/reduced-64"), help="folder of a finished study")
    parser.add_argument("--tables", action="store_true", help="only the page and the plot, from the results that are there")
    arguments = parser.parse_args()
    if not arguments.tables:
        study = Study.in_folder(arguments.study)
        with settle(study):
            write_json(RESULT, measure_all(study))
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    write_text(PAGE, page(result))
    with atomic_path(PAGE.with_suffix(".png")) as temporary:
        temporary.write_bytes(to_png(plot(result)))


if __name__ == "__main__":
    main()
