"""Stage `tables`: errors, distance to the limit and claims, from the sample files alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddis.config import Case, Study
from ddis.data.hdf5 import read_attributes
from ddis.data.references import REFERENCES, read_references
from ddis.data.store import Samples, read_samples
from ddis.data.subsets import fraction_of, subset_count
from ddis.evaluation import calibration_table, claims, limit, posteriors, readable
from ddis.evaluation import table as tables
from ddis.evaluation.posteriors import Compared
from ddis.evaluation.published import PARAMETERS, POSTERIORS_SETTING
from ddis.evaluation.scores import Scores, field_scores
from ddis.files import write_together
from ddis.sampling.methods import load_method
from ddis.stages.common import has_both_signs, stage
from ddis.stages.layout import DISTANCES, TABLES, reference_path, samples_path
from ddis.steps import Step, check_settings
from ddis.text import csv_text


def read_case(study: Study, case: Case) -> Samples:
    """The samples of a case, checked against the study. Raises InputError."""
    path = samples_path(study, **vars(case))
    samples = read_samples(path)
    check_settings(study, Step("sample", dict(vars(case))), path, samples.attributes.get("configuration"))
    samples.attributes.setdefault("prior", load_method(study.runs[case.run].method).prior)  # older files lack it
    return samples


def run(study: Study) -> None:
    """Writes tables/ (see `layout.TABLES`)."""
    with stage(study, "tables") as (tracker, _):
        paths = {study.folder / "tables" / name: text for name, text in all_tables(study).items()}
        write_together(paths)
        for path in paths:
            tracker.artifact(path)


def all_tables(study: Study) -> dict[str, str]:
    """Text of every table, by file name, from the study's samples and references."""
    compared = read_references_of(study)
    rows, scores, distances = read_all(study, compared)
    texts = make_tables(study, rows, scores)
    return texts | distance_tables(study, distances, reference_notes(study)) if compared else texts


def read_references_of(study: Study) -> dict[tuple[str, str], Compared]:
    """The references of the study by problem and observation, checked against it. Raises InputError."""
    found = {}
    for problem, observation in study.reference_cases():
        path = reference_path(study, problem, observation)
        references = read_references(path)
        step = Step("reference", {"problem": problem, "observation": observation})
        check_settings(study, step, path, references.attributes.get("configuration"))
        space = study.make_problem(problem).spaces(study.data.resolution)[0]
        found[problem, observation] = Compared(problem, observation, references, space)
    return found


def read_all(
    study: Study, compared: Mapping[tuple[str, str], Compared]
) -> tuple[list[dict[str, Any]], list[Scores], list[dict[str, Any]]]:
    """Row of the table of errors and scores of every case, rows of distances; one file of samples in memory at a time."""
    cases, scores, distances, floors = study.cases(), list[Scores](), list[dict[str, Any]](), dict[tuple[str, str, int], Any]()
    of_references: dict[tuple[str, str], np.ndarray | None] = {}
    for case in cases:
        samples, place = read_case(study, case), (case.problem, case.observation)
        scores.append(field_scores(samples, even=has_both_signs(study, *place)))
        reference = compared.get(place)
        if reference is None:
            continue
        of_references[place] = reference.limit(samples)
        distances.append(reference.run_row(samples))
        count = min(samples.coefficient.shape[1], reference.half)  # the floor has no more draws
        if (*place, count) not in floors:
            floors[*place, count] = reference.floor_row(count)
    closed = [load_method(study.runs[case.run].method).closed_form for case in cases]
    exact = {(c.problem, c.observation): s.l2_stored for c, s, known in zip(cases, scores, closed, strict=True) if known}
    limits = of_references | exact
    rows = [tables.error_row(s, limits.get((c.problem, c.observation))) for c, s in zip(cases, scores, strict=True)]
    order = list(dict.fromkeys((case.problem, case.observation) for case in cases))
    distances = sorted([*distances, *floors.values()], key=lambda row: order.index((row["problem"], row["observation"])))
    return rows, scores, distances


def distance_tables(study: Study, distances: Sequence[dict[str, Any]], notes: Sequence[str]) -> dict[str, str]:
    """Text of the tables of distances, by file name; published figures stand below ours where they are read."""
    published = [
        row for p in study.problems if of_benchmark(study, p) for row in posteriors.published_rows(p, study.problems[p].pde)
    ]
    compared = [row for row in distances if row["n_fields"]]  # of the others the notes say that nothing has converged
    shown, notes = [*compared, *published], [*notes, *[POSTERIORS_SETTING] * bool(published)]
    makers = posteriors.to_csv(distances), posteriors.to_markdown(shown, notes), posteriors.to_latex(shown, notes)
    return dict(zip(DISTANCES, makers, strict=True))


def of_benchmark(study: Study, problem: str) -> bool:
    """Whether a problem with references is one of PosteriorBench's, with its parameters."""
    asked = PARAMETERS.get(study.problems[problem].pde)
    parameters = study.make_problem(problem).parameters
    compared = problem in {name for name, _ in study.reference_cases()}
    return compared and asked is not None and all(getattr(parameters, name) == value for name, value in asked.items())


def reference_notes(study: Study) -> list[str]:
    """What the references are, one sentence each: how they were made, how many converged, their own Monte Carlo error."""
    notes = []
    for problem, observation in study.reference_cases():
        told = read_attributes(reference_path(study, problem, observation), REFERENCES)
        certified, errors = np.array(told["converged"]), np.array(told["mean_error"])
        note = f"Reference of {problem}, {observation}: {told['kind']}, likelihood {told['likelihood']}"
        if told["kind"] in ("mcmc", "kernel"):
            note += f", {certified.sum()} of {len(certified)} fields converged"
            if certified.any():
                note += f", Monte Carlo error of its mean {errors[certified].mean():.2g} % of the mean"
        notes.append(note + ".")
    return notes


def make_tables(study: Study, rows: Sequence[dict[str, Any]], scores: Sequence[Scores]) -> dict[str, str]:
    """Text of every table of errors, by file name."""
    errors = tables.error_table(rows)
    caption = readable.caption(errors, study.study, study.seed, notes(study))
    ratios, splits, claimed = limit.ratio_rows(scores), limit.split_rows(scores), claims.claim_rows(scores)
    calibrated = calibration_table.calibration_rows(scores)
    texts = {
        "errors.csv": tables.to_csv(errors),
        "errors.md": readable.to_markdown(errors, caption),
        "errors.tex": readable.to_latex(errors, caption),
        "limit.csv": csv_text(ratios, limit.RATIO_COLUMNS),
        "limit.md": limit.to_markdown(ratios, splits),
        "split.csv": csv_text(splits, limit.SPLIT_COLUMNS),
        "claims.csv": csv_text(claimed, claims.COLUMNS),
        "claims.md": claims.to_markdown(claimed),
        "calibration.csv": calibration_table.to_csv(calibrated),
        "calibration.md": calibration_table.to_markdown(calibrated),
    }
    return {name: texts[name] for name in TABLES}


def notes(study: Study) -> list[str]:
    """Sizes that the table's own columns do not tell."""
    percents = sorted({case.percent for case in study.cases()}, key=float)
    shares = ", ".join(f"{percent} %: {subset_count(fraction_of(percent), study.data.validation)}" for percent in percents)
    return [
        f"Coefficient priors saw {study.data.train} coefficients, joint priors and operators the pairs of their percent.",
        f"Validation pairs for stopping, tuning and R, by percent: {shares}.",
        *resolution_notes(study),
        *reference_notes(study),
    ]


def resolution_notes(study: Study) -> list[str]:
    """Which networks were trained on fewer nodes than the fields have; nothing where none was."""
    nodes = {name: size for case in study.cases() for name, size in study.coarser(case.run, case.percent).items()}
    return [f"Networks trained on fewer nodes per side: {', '.join(f'{name} {nodes[name]}' for name in nodes)}."] if nodes else []
