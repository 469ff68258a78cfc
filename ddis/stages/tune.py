"""Stage `tune`: the validation error of a run against its weight. Test fields are never touched.

Where the posterior has a and -a alike, a sample of the other sign is as good: its error is that of the nearer of the two. Else
the sign, a matter of chance, would decide.
"""

import shutil

import numpy as np

from ddis.config import Case, Study
from ddis.errors import InputError
from ddis.evaluation.metrics import relative_l2
from ddis.files import write_csv
from ddis.posterior import spaces_of
from ddis.sampling.methods import load_method
from ddis.stages.common import has_both_signs, stage, validation_share
from ddis.stages.layout import tuning_path
from ddis.stages.sampler import Sampler, observe

COLUMNS = ["weight", "l2_validation", "l2_validation_se", "n_fields", "n_diverged"]
DIVERGED = 1000.0  # %


def run(study: Study, problem: str, observation: str, run: str, percent: str) -> None:
    """Writes tuning/<problem>/<observation>/<run>-<percent>.csv: one row per candidate."""
    case = Case(problem, observation, run, percent)
    if run not in study.tuning.candidates:
        raise InputError(f"run {run!r} has no tuning.candidates; accepted: {', '.join(study.tuning.candidates) or 'none'}")
    settings, candidates = study.run_for(case), study.tuning.candidates[case.run]
    method = load_method(settings.method)(settings)
    fields = validation_share(study, case.percent)[: study.tuning.fields]
    with stage(study, "tune", **vars(case)) as (tracker, _):
        observed, rows = observe(study, case, "validation", fields), []
        digest = study.digest("tune", **vars(case))
        for place, weight in enumerate(candidates):
            sampler = Sampler(study, case, method.with_weight(weight))
            folder = sampler.work_folder("tune", digest)
            work = folder / str(place)
            sampler.draw(observed, "validation", work, range(len(fields)))
            result = sampler.collect(observed, work)
            drawn, space = result.coefficient[:, 0], spaces_of(sampler.parts.problem)[0]
            alike = [drawn, -drawn] if has_both_signs(study, problem, observation) else [drawn]
            errors = np.min([100 * relative_l2(sample, observed.coefficient, space) for sample in alike], axis=0)
            rows.append({"weight": weight, **summary(errors)})
            tracker.metrics({column: value for column, value in rows[-1].items() if value is not None}, step=place)
        path = tuning_path(study, **vars(case))
        write_csv(path, rows, COLUMNS)
        tracker.artifact(path)
        shutil.rmtree(folder, ignore_errors=True)


def summary(errors: np.ndarray) -> dict[str, float | int | None]:
    """Mean and standard error of errors [n] in %, of single samples; both empty if a field diverged."""
    diverged = int((~(errors < DIVERGED)).sum())
    mean = None if diverged else float(np.mean(errors))
    spread = float(np.std(errors, ddof=1) / np.sqrt(len(errors))) if len(errors) > 1 and not diverged else None
    return dict(zip(COLUMNS[1:], (mean, spread, len(errors), diverged), strict=True))
