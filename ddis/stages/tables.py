"""Stage `tables`: errors, distance to the limit and claims, from the sample files alone."""

from collections.abc import Sequence
from typing import Any

from ddis.config import Case, Study
from ddis.data.store import Samples, read_samples
from ddis.errors import InputError
from ddis.evaluation import claims, limit, readable
from ddis.evaluation import table as tables
from ddis.evaluation.scores import Scores, field_scores
from ddis.files import write_together
from ddis.sampling.methods import load_method
from ddis.stages.common import stage
from ddis.stages.layout import TABLES, samples_path
from ddis.text import csv_text


def read_case(study: Study, case: Case) -> Samples:
    """The samples of a case, checked against the study. Raises InputError."""
    path = samples_path(study, **vars(case))
    samples = read_samples(path)
    if samples.attributes.get("configuration") != study.digest("sample", **vars(case)):
        raise InputError(f"{path} was made with another configuration than the study's; run snakemake, which makes it again")
    samples.attributes.setdefault("prior", load_method(study.runs[case.run].method).prior)  # older files lack it
    return samples


def run(study: Study) -> None:
    """Writes tables/ (see `layout.TABLES`)."""
    with stage(study, "tables") as (tracker, _):
        rows, scores = read_all(study)
        texts = {study.folder / "tables" / name: text for name, text in make_tables(study, rows, scores).items()}
        write_together(texts)
        for path in texts:
            tracker.artifact(path)


def read_all(study: Study) -> tuple[list[dict[str, Any]], list[Scores]]:
    """Row of the table of errors and scores of every case; one file of samples in memory at a time."""
    cases = study.cases()
    scores = [field_scores(read_case(study, case)) for case in cases]
    closed = [load_method(study.runs[case.run].method).closed_form for case in cases]
    limits = {(c.problem, c.observation): s.l2_stored for c, s, known in zip(cases, scores, closed, strict=True) if known}
    rows = [tables.error_row(s, limits.get((c.problem, c.observation))) for c, s in zip(cases, scores, strict=True)]
    return rows, scores


def make_tables(study: Study, rows: Sequence[dict[str, Any]], scores: Sequence[Scores]) -> dict[str, str]:
    """Text of every table, by file name."""
    errors = tables.error_table(rows)
    caption = readable.caption(errors, study.study, study.seed, notes(study))
    ratios, splits, claimed = limit.ratio_rows(scores), limit.split_rows(scores), claims.claim_rows(scores)
    texts = {
        "errors.csv": tables.to_csv(errors),
        "errors.md": readable.to_markdown(errors, caption),
        "errors.tex": readable.to_latex(errors, caption),
        "limit.csv": csv_text(ratios, limit.RATIO_COLUMNS),
        "limit.md": limit.to_markdown(ratios, splits),
        "split.csv": csv_text(splits, limit.SPLIT_COLUMNS),
        "claims.csv": csv_text(claimed, claims.COLUMNS),
        "claims.md": claims.to_markdown(claimed),
    }
    return {name: texts[name] for name in TABLES}


def notes(study: Study) -> list[str]:
    """Sizes that the table's own columns do not tell."""
    percents = sorted({case.percent for case in study.cases()}, key=float)
    shares = ", ".join(f"{percent} %: {study.share(percent, study.data.validation)}" for percent in percents)
    return [
        f"Coefficient priors saw {study.data.train} coefficients, joint priors and operators the pairs of their percent.",
        f"Validation pairs for stopping, tuning and R, by percent: {shares}.",
    ]
