"""Stage `tuning`: the curves of `ddis tune`, with the weights that the configuration sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddis.config import Case, Study
from ddis.evaluation.figures.training import tuning
from ddis.evaluation.text import read_table
from ddis.sampling.methods import load_method
from ddis.stages.common import stage
from ddis.stages.figures import save
from ddis.stages.layout import groups, tuning_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(study: Study) -> None:
    """Writes figures/tuning-<problem>-<observation>-<run>.png from the curves of `ddis tune`."""
    with stage(study, "tuning") as (tracker, _):
        save(study, draw(study), tracker)


def draw(study: Study) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the curves of every tuned run."""
    for problem, observation in groups(study):
        for run_name in study.tuning.candidates:
            cases = [c for c in study.cases() if (c.problem, c.observation, c.run) == (problem, observation, run_name)]
            if cases:
                labels = [f"{run_name}, {case.percent} %" for case in cases]
                curves = [read_table(tuning_path(study, **vars(case))) for case in cases]
                chosen = [chosen_weight(study, case) for case in cases]
                figure = tuning(dict(zip(labels, curves, strict=True)), dict(zip(labels, chosen, strict=True)))
                yield f"tuning-{problem}-{observation}-{run_name}", figure


def chosen_weight(study: Study, case: Case) -> float:
    """The weight that the configuration sets for a case."""
    settings = study.run_for(case)
    return float(getattr(settings, load_method(settings.method).tuned or ""))
