"""Stage `tuning`: the curves of `ddis tune`, with the weights that the configuration sets."""

import pandas as pd

from ddis.config import Case, Study
from ddis.evaluation import figures
from ddis.sampling.methods import load_method
from ddis.stages.common import stage
from ddis.stages.figures import save
from ddis.stages.layout import groups, tuning_path


def run(study: Study) -> None:
    """Writes figures/tuning-<problem>-<observation>-<run>.png from the curves of `ddis tune`."""
    with stage(study, "tuning") as (tracker, _):
        for problem, observation in groups(study):
            for run_name in study.tuning.candidates:
                cases = [c for c in study.cases() if (c.problem, c.observation, c.run) == (problem, observation, run_name)]
                if not cases:
                    continue
                curves, chosen = {}, {}
                for case in cases:
                    label = f"{run_name}, {case.percent} %"
                    curves[label] = pd.read_csv(tuning_path(study, **vars(case)))
                    chosen[label] = chosen_weight(study, case)
                path = study.folder / "figures" / f"tuning-{problem}-{observation}-{run_name}.png"
                save(figures.tuning(curves, chosen), path)
                tracker.artifact(path)


def chosen_weight(study: Study, case: Case) -> float:
    """The weight that the configuration sets for a case."""
    settings = study.run_for(case)
    return float(getattr(settings, load_method(settings.method).tuned or ""))
