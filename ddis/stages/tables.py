"""Stage `tables`: errors.csv, .md and .tex from the sample files alone."""

import numpy as np

from ddis.config import Case, Study
from ddis.data.store import Samples, read_samples
from ddis.errors import InputError
from ddis.evaluation import table as tables
from ddis.files import write_text
from ddis.sampling.methods import load_method
from ddis.stages.common import stage
from ddis.stages.layout import samples_path


def read_case(study: Study, case: Case) -> Samples:
    """The samples of a case, checked against the study. Raises InputError."""
    path = samples_path(study, **vars(case))
    samples = read_samples(path)
    if samples.attributes.get("configuration") != study.digest("sample", **vars(case)):
        raise InputError(f"{path} was made with another configuration than the study's; run snakemake, which makes it again")
    return samples


def run(study: Study) -> None:
    """Writes tables/errors.csv, errors.md and errors.tex."""
    with stage(study, "tables") as (tracker, _):
        rows, limits = [], closed_form_limits(study)
        for case in study.cases():
            rows.append(tables.error_row(read_case(study, case), limits.get((case.problem, case.observation))))
        table = tables.error_table(rows)
        caption = tables.caption(table, study.study, study.seed, notes(study))
        folder = study.folder / "tables"
        texts = {
            "csv": tables.to_csv(table),
            "md": tables.to_markdown(table, caption),
            "tex": tables.to_latex(table, caption),
        }
        for suffix, text in texts.items():
            write_text(folder / f"errors.{suffix}", text)
            tracker.artifact(folder / f"errors.{suffix}")
        for case, row in zip(study.cases(), rows, strict=True):
            label = f"{case.problem}/{case.observation}/{case.run}-{case.percent}"
            names = ("l2_sample", "l2_mean", "spectral")
            tracker.metrics({f"{label}/{name}": row[name] for name in names if row[name] is not None})


def closed_form_limits(study: Study) -> dict[tuple[str, str], np.ndarray]:
    """Errors [n] of the closed-form mean in %, per problem and observation with a closed-form run."""
    return {
        (case.problem, case.observation): tables.closed_form_errors(read_case(study, case))
        for case in study.cases()
        if load_method(study.runs[case.run].method).closed_form
    }


def notes(study: Study) -> list[str]:
    """Sizes that the table's own columns do not tell."""
    percents = sorted({case.percent for case in study.cases()}, key=float)
    shares = ", ".join(f"{percent} %: {study.share(percent, study.data.validation)}" for percent in percents)
    return [
        f"Coefficient priors saw {study.data.train} coefficients, joint priors and operators the pairs of their percent.",
        f"Validation pairs for stopping, tuning and R, by percent: {shares}.",
    ]
