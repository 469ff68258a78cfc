"""Stage `figures`: every picture of a study, from its sample files, histories and tables."""

from pathlib import Path
from typing import Any

import pandas as pd

from ddis.config import Study
from ddis.data.store import Samples
from ddis.evaluation import figures
from ddis.evaluation.table import from_csv
from ddis.files import atomic_path
from ddis.stages.common import stage
from ddis.stages.layout import groups, model_folder, models
from ddis.stages.tables import read_case


def run(study: Study) -> None:
    """Writes figures/*.png."""
    with stage(study, "figures") as (tracker, _):
        colours = figures.run_colours(list(study.runs))
        table = from_csv(study.folder / "tables" / "errors.csv")
        drawn: dict[str, Any] = {}
        for problem, observation in groups(study):
            runs = shown_runs(study, problem, observation)
            key = f"{problem}-{observation}"
            drawn[f"gallery-{key}"] = figures.gallery(runs, fields=[0, 1] if len(runs[0].mean) > 1 else [0])
            drawn[f"spectra-{key}"] = figures.spectra(runs, colours)
            drawn[f"fractions-{key}"] = figures.error_against_fraction(table, problem, observation, colours)
            drawn[f"calibration-{key}"] = figures.calibration(runs, colours)
        for problem in study.problems:
            histories = {m: pd.read_csv(model_folder(study, problem, m) / "history.csv") for m in models(study, problem)}
            if histories:
                drawn[f"training-{problem}"] = figures.training_history(histories)
            if "prior" in histories:
                quality = pd.read_csv(model_folder(study, problem, "prior") / "denoising.csv")
                drawn[f"prior-{problem}"] = figures.prior_quality({"prior": quality})
        for name, figure in drawn.items():
            save(figure, study.folder / "figures" / f"{name}.png")
            tracker.artifact(study.folder / "figures" / f"{name}.png")


def shown_runs(study: Study, problem: str, observation: str) -> list[Samples]:
    """Samples of every case of a problem and observation, in the order of the configuration."""
    return [read_case(study, case) for case in study.cases() if (case.problem, case.observation) == (problem, observation)]


def save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(figures.to_png(figure))
