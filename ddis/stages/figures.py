"""Stage `figures`: every picture of a study, from its sample files, histories and tables."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ddis.config import Study
from ddis.data.store import Samples
from ddis.evaluation.figures import calibration, errors, fields, limit, sbc, training
from ddis.evaluation.figures.style import run_colours, to_png
from ddis.evaluation.table import from_csv
from ddis.evaluation.text import read_table
from ddis.files import write_together
from ddis.stages.common import stage
from ddis.stages.layout import groups, has_limit, model_folder, models
from ddis.stages.tables import read_case
from ddis.tracking import StageRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(study: Study) -> None:
    """Writes figures/*.png."""
    with stage(study, "figures") as (tracker, _):
        save(study, draw(study, study.folder / "tables"), tracker)


def draw(study: Study, tables: Path) -> Iterator[tuple[str, Figure]]:
    """Name and figure of every picture of the study; `tables` is the folder of its tables."""
    colours = run_colours(list(study.runs))
    table = from_csv(tables / "errors.csv")
    ratios, splits = (read_table(tables / name) for name in ("limit.csv", "split.csv"))
    for problem, observation in groups(study):
        runs, key = shown_runs(study, problem, observation), f"{problem}-{observation}"
        yield f"gallery-{key}", fields.gallery(runs, fields=[0, 1] if len(runs[0].mean) > 1 else [0])
        yield f"spectra-{key}", errors.spectra(runs, colours)
        yield f"fractions-{key}", errors.error_against_fraction(table, problem, observation, colours)
        judged = calibration.judge(runs)
        yield f"calibration-{key}", calibration.summary(judged, colours)
        yield f"ranks-{key}", calibration.rank_histograms(judged, colours)
        yield f"sbc-{key}", sbc.differences(runs)
        if has_limit(study, problem, observation):
            yield f"limit-{key}", limit.distance(ratios, splits, problem, observation, colours)
    for problem in study.problems:
        histories = {m: read_table(model_folder(study, problem, m) / "history.csv") for m in models(study, problem)}
        if histories:
            yield f"training-{problem}", training.training_history(histories)
        if "prior" in histories:
            quality = read_table(model_folder(study, problem, "prior") / "denoising.csv")
            yield f"prior-{problem}", training.prior_quality({"prior": quality}, study.make_problem(problem).is_gaussian)


def shown_runs(study: Study, problem: str, observation: str) -> list[Samples]:
    """Samples of every case of a problem and observation, in the order of the configuration."""
    return [read_case(study, case) for case in study.cases() if (case.problem, case.observation) == (problem, observation)]


def save(study: Study, figures: Iterable[tuple[str, Figure]], tracker: StageRun) -> None:
    """Writes all figures to figures/<name>.png, or none."""
    gc.set_threshold(20_000)  # figures are made of so many objects that the search for garbage among them is 6 % of the stage
    pictures = {study.folder / "figures" / f"{name}.png": to_png(figure) for name, figure in figures}
    write_together(pictures)
    for path in pictures:
        tracker.artifact(path)
