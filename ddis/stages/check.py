"""Stage `check`: what held-out fields say of a run's intervals. Validation fields only; test fields are never touched."""

import shutil

from ddis.config import Case, Study
from ddis.errors import DamagedError, InputError
from ddis.evaluation.certificate import certificate, line, to_markdown
from ddis.files import read_json, write_json
from ddis.inputs import CHECKED
from ddis.reading import REPAIR
from ddis.stages.common import stage, validation_share
from ddis.stages.layout import check_path
from ddis.stages.records import why_unchecked
from ddis.stages.sample import assemble
from ddis.stages.sampler import Sampler, observe
from ddis.steps import Step


def run(study: Study, problem: str, observation: str, run: str, percent: str) -> None:
    """Writes models/<problem>/checks/<observation>/<run>-<percent>.json, and prints its table."""
    case = Case(problem, observation, run, percent)
    settings, fields = study.run_for(case), validation_share(study, percent)[:CHECKED]
    if reason := why_unchecked(study, case):
        raise InputError(reason)
    with stage(study, "check", **vars(case)) as (tracker, record):
        digest = study.digest("check", **vars(case))
        observed, sampler = observe(study, case, "validation", fields), Sampler(study, case, settings)
        work = sampler.work_folder("check", digest)
        sampler.draw(observed, "validation", work, range(len(fields)))
        found = certificate(assemble(study, case, settings, sampler, observed, sampler.collect(observed, work)))
        path = check_path(study, **vars(case))
        write_json(path, found | {"configuration": digest, "provenance": record})
        tracker.metrics({name: found[name] for name in ("p_value", "coverage90", "factor") if found[name] is not None})
        tracker.artifact(path)
        shutil.rmtree(work, ignore_errors=True)
    print(to_markdown(found), end="")


def lines_of(study: Study, problem: str, run: str, percent: str) -> list[str]:
    """What the checks of a run say, one line for each observation that it was checked for."""
    lines = []
    for observation in study.observations:
        case = Case(problem, observation, run, percent)
        path = check_path(study, **vars(case))
        if case in study.cases() and path.is_file():
            found = read_json(path)
            try:
                old = found["configuration"] != Step("check", dict(vars(case))).digest(study)
                lines.append(f"{path} is of other settings; run `ddis check` again" if old else line(found))
            except (KeyError, TypeError, ValueError) as error:
                raise DamagedError(f"{path} is not of `ddis check` ({error!r}); {REPAIR}") from error
    return lines
