"""What calls of the solver are worth beside a network: `ddis-gn` with `operator: corrected`, over the number of calls per sample.

    python benchmarks/corrected.py [--study results/quickstart] [--percent 1 --percent 100] [--tables]

Takes prior and operators of a study with a run `ddis-gn`; the row without calls is that run, the last of a percent is
`operator: solver`. Adds to benchmarks/results/corrected.json the rows that it measures, and writes corrected.md from it. About
two minutes a percent for the quickstart, on one core.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddis.config import Case, Study
from ddis.data.store import failed_fields
from ddis.evaluation import metrics
from ddis.evaluation.calibration import calibration
from ddis.files import write_json, write_text
from ddis.stages.common import settle
from ddis.stages.sampler import Sampler, observe
from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "corrected.json"
CALLS = (0, 2, 5, 10, 12, 20, 40)


def measure(study: Study, case: Case, operator: str, **changes: Any) -> dict[str, Any]:
    """Errors, coverage and cost of `ddis-gn` on all test fields."""
    settings = study.run_for(case).model_copy(update={"operator": operator, **changes})
    sampler, observed = Sampler(study, case, settings), observe(study, case, "test", np.arange(study.data.test))
    with tempfile.TemporaryDirectory() as folder:
        sampler.draw(observed, "test", Path(folder), range(study.data.test))
        result = sampler.collect(observed, Path(folder))
    assert not failed_fields(result.coefficient).any()
    found = calibration(result.coefficient, observed.coefficient)
    assert found is not None
    return {
        "l2_mean": (100 * metrics.relative_l2(result.coefficient.mean(axis=1), observed.coefficient)).tolist(),
        "l2_sample": (100 * metrics.relative_l2(result.coefficient, observed.coefficient[:, None]).mean(axis=1)).tolist(),
        "coverage90": found.coverage90,
        "spread_skill": found.spread_skill,
        "operator_evaluations": result.operator_evaluations,
        "solver_calls": result.solver_calls,
        "seconds_per_sample": result.seconds / (study.data.test * settings.samples),
    }


def measure_all(study: Study, percents: list[str], known: Mapping[str, Any]) -> dict[str, Any]:
    problem, observation = next(iter(study.problems)), next(iter(study.observations))
    setting = {"study": study.study, "problem": problem, "size": study.data.resolution, "fields": study.data.test}
    setting |= {"observations": study.observed(problem, observation), "samples": study.runs["ddis-gn"].samples}
    rows = {(row["percent"], row["calls"]): row for row in known.get("rows", ()) if known["study"] == study.study}
    for percent in percents:
        case = Case(problem, observation, "ddis-gn", percent)
        ways = [(calls, "corrected", {"solver_calls": calls}) for calls in CALLS]
        for calls, operator, changes in [*ways, (None, "solver", {})]:
            row = {"percent": percent, "calls": calls, **measure(study, case, operator, **changes)}
            rows[percent, calls] = row
            print(percent, calls, round(np.mean(row["l2_mean"]), 2), round(row["coverage90"], 3), flush=True)
    return {**setting, "rows": list(rows.values())}


def page(result: Mapping[str, Any]) -> str:
    """benchmarks/results/corrected.md."""
    head = ["% pairs", "calls", "calls made", "l2 of the mean, %", "l2 of a sample, %", "coverage90", "spread / skill"]
    head += ["operator evaluations", "s per sample"]
    body = []
    for row in result["rows"]:
        errors = (f"{np.mean(e):.1f} ± {np.std(e, ddof=1) / len(e) ** 0.5:.1f}" for e in (row["l2_mean"], row["l2_sample"]))
        made = "" if row["solver_calls"] is None else f"{row['solver_calls']:.1f}"
        calls = "solver alone" if row["calls"] is None else str(row["calls"])
        quality = (f"{row['coverage90']:.3f}", f"{row['spread_skill']:.2f}", f"{row['operator_evaluations']:.0f}")
        body.append([row["percent"], calls, made, *errors, *quality, f"{row['seconds_per_sample']:.3f}"])
    setting = (
        f"Study {result['study']}: {result['problem']}, {result['size']} x {result['size']} nodes, {result['observations']} "
        f"observations, {result['fields']} test fields, {result['samples']} samples of each, `ddis-gn` with "
        "`operator: corrected` and its default settings. Calls of the solver, operator evaluations and seconds are per sample."
    )
    return "\n\n".join([setting, pipe_table(head, body), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/quickstart"), help="folder of a finished study")
    parser.add_argument("--percent", action="append", help="of the pairs of the network; default: those of the study")
    parser.add_argument("--tables", action="store_true", help="only the table, from the results that are there")
    arguments = parser.parse_args()
    if not arguments.tables:
        study = Study.in_folder(arguments.study)
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        with settle(study):
            write_json(RESULT, measure_all(study, arguments.percent or study.percents("ddis-gn"), known))
    write_text(RESULT.with_suffix(".md"), page(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
