"""All stages of a study in this process, for the tests of whole studies."""

from ddis.config import Study
from ddis.stages import card, figures, generate, pairs, report, sample, tables, train
from ddis.stages.layout import models
from ddis.stages.study import run as write_configuration


def run_all(study: Study) -> None:
    """Makes the study, of all pairs alone, in the working directory."""
    write_configuration(study)
    for problem in study.problems:
        for split in ("train", "validation", "test"):
            generate.run(study, problem, split)
        card.run(study, problem)
        pairs.run(study, problem, "100")
        for model in models(study, problem):
            train.run(study, problem, model)
    for case in study.cases():
        sample.run(study, **vars(case))
    tables.run(study)
    figures.run(study)
    report.run(study)
