"""Puts every table and figure of a study under docs/: `python docs/reproduce.py results/STUDY TARGET`, at the repository root.

With --paper the page of the paper's tables and figures instead, as `snakemake paper` makes it: a study of experiments.

Everything is computed anew from the study's sample files, models and tuning curves, so the study must be finished: `snakemake
--cores all --configfile FILE`, and `tune` for the curves. The folder TARGET gets the resolved configuration, the tables, a table
of the networks, the tuning curves, the figures, and a README.md that shows them all.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from refresh import networks, prior, tuning

from ddis.config import Case, Study
from ddis.data.references import read_references
from ddis.errors import InputError
from ddis.evaluation.figures import fields, moments
from ddis.evaluation.figures.style import small_png
from ddis.evaluation.posteriors import FLOOR
from ddis.files import write_csv, write_text, write_together
from ddis.stages import figures, paper
from ddis.stages import tuning as tuning_stage
from ddis.stages.experiments import PAGE
from ddis.stages.layout import groups, model_folder, models, reference_path, tuning_path
from ddis.stages.records import digests, inputs_of
from ddis.stages.report import TITLES
from ddis.stages.stale import stale
from ddis.stages.tables import all_tables
from ddis.steps import Step, read_record, record_name
from ddis.text import pipe_table

NETWORK_COLUMNS = ["problem", "network", "parameters", "training_fields", "validation_fields", "validation_loss", "seconds"]

COMPARED = {
    **{"n_samples": "K", "mean": "mean", "std": "std", "mmd": "MMD", "swd": "SWD", "spectrum": "spectrum"},
    **{"l2_sample": "l2 of a sample, %", "l2_mean": "l2 of the mean, %", "spectral": "E_s", "coverage90": "coverage of 90 %"},
    **{"mode_share": "share at the truth's sign", "mode_pairs": "pairs in two modes"},
}

OWN_TITLES = {
    "tuning": ("Weights", "Validation error against the weight; the dashed line is what the study uses."),
    "moments": ("Mean and standard deviation", "Of the reference posterior, where it has converged, and of each run's samples."),
    "run": ("One field", "Truth, mean, one sample, the standard deviation of the samples, and the error of their mean."),
}


def load(folder: Path) -> Study:
    """The study of a folder of results. Raises InputError if it is none, or another study's."""
    study = Study.load(folder / "config.yaml")
    if study.folder.resolve() != folder.resolve():
        raise InputError(f"{folder} is not {study.folder} here; run this at the root of the repository")
    return study


def network_rows(study: Study) -> list[dict[str, object]]:
    """Size, data, loss and training time of every network."""
    rows = []
    for problem in study.problems:
        for name in models(study, problem):
            folder = model_folder(study, problem, name)
            known = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            seconds = float(pd.read_csv(folder / "history.csv")["seconds"].max())
            row = {"problem": problem, "network": name, "seconds": seconds}
            rows.append(row | {key: known[key] for key in NETWORK_COLUMNS if key in known})
    return rows


def tuned_cases(study: Study) -> list[Case]:
    """The cases with candidates for their weight. Raises InputError if one has no curve, or one of other settings or networks."""
    cases = [case for case in study.cases() if case.run in study.tuning.candidates]
    for case in cases:
        step, path = Step("tune", dict(vars(case))), tuning_path(study, **vars(case))
        record = read_record(study.folder / record_name(step))
        lacking = {} if record else {step.label: "no record tells how it was made"}
        reasons = stale(study, [step], {step.label: record}, digests(study, inputs_of(study, step)), lacking)
        if not path.exists() or reasons:
            state = f"is stale: {reasons[step.label]}" if path.exists() else "does not exist"
            raise InputError(f"{path} {state}; run the study's `snakemake ... tune` first")
    return cases


def draw(study: Study, target: Path) -> Iterator[tuple[str, Figure]]:
    """The figures of the study and of its tuning, and one of every run at its largest percent."""
    yield from figures.draw(study, target)
    yield from tuning_stage.draw(study)
    for problem, observation in groups(study):
        largest = {samples.attributes["run"]: samples for samples in figures.shown_runs(study, problem, observation)}
        for run, samples in largest.items():
            yield f"run-{problem}-{observation}-{run}", fields.portrait(samples, field=0)
    for problem, observation in study.reference_cases():
        references = read_references(reference_path(study, problem, observation))
        runs = figures.shown_runs(study, problem, observation)
        yield f"moments-{problem}-{observation}", moments.moments(runs, references, field=int(references.converged.argmax()))


def origin(study: Study) -> str:
    """By which code the samples were drawn, and when."""
    records = (read_record(study.folder / record_name(Step("sample", dict(vars(case))))) for case in study.cases())
    codes = {f"{r['versions']['ddis']}, commit {str(r['git_commit'])[:7]}, {r['ended'][:10]}" for r in records if r}
    return f"Samples drawn by ddis {'; '.join(sorted(codes)) or 'of an unknown version'}."


def commands(study: Study, target: Path, options: str = "") -> str:
    """How the folder was made."""
    targets = ["", " tune"] if study.tuning.candidates else [""]
    made = [f"    snakemake --cores all{goal} --configfile config/{study.study}.yaml" for goal in targets]
    made.append(f"    python docs/reproduce.py {options}{study.folder} {target}")
    words = f"Tables and figures of `config.yaml`, made from `{study.folder}/` by the last of these commands:"
    return "\n\n".join([words, "\n".join(made), origin(study)])


def learnt(study: Study) -> list[str]:
    """Sections on networks, priors and weights."""
    parts = []
    for problem in study.problems:
        folder = model_folder(study, problem, "prior").parent
        parts += [f"## Networks, {problem}", networks(folder)]
        if (folder / "prior" / "denoising.csv").exists():
            reference = "optimal" if study.make_problem(problem).is_gaussian else "best linear"
            parts += [f"## The prior against the {reference} denoiser, {problem}", prior(folder, reference)]
    return [*parts, "## Weights, chosen on validation fields", tuning(study)] if study.tuning.candidates else parts


def compared(target: Path, problem: str, observation: str) -> str:
    """The runs of a problem with references at a glance: distances and errors, and shares of modes where there are two."""
    found = (pd.read_csv(target / name) for name in ("posterior.csv", "errors.csv"))
    distances, errors = (t[(t["problem"] == problem) & (t["observation"] == observation)] for t in found)
    both = errors.merge(distances.drop(columns="n_samples"), how="left", on=["run", "percent"], suffixes=("", "_of_distances"))
    table = pd.concat([both, distances[distances["run"] == FLOOR]]).dropna(axis=1, how="all")
    columns = {name: title for name, title in COMPARED.items() if name in table}
    rows = [
        [f"{row['run']}", *("" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in columns)] for _, row in table.iterrows()
    ]
    return pipe_table(["run", *columns.values()], rows)


def page(study: Study, target: Path, pictures: list[str]) -> str:
    """README.md of the folder: what was made from what, all tables, all figures."""
    parts = [f"# The study `{study.study}`, in numbers", commands(study, target)]
    for problem, observation in study.reference_cases():
        parts += [f"## Every run at a glance: {problem}, {observation}", compared(target, problem, observation)]
    distances = [("Distances to the reference posteriors", "posterior.md")] if study.reference_cases() else []
    tables = [("Errors", "errors.md"), *distances, ("Distance to the limit", "limit.md"), ("Claims", "claims.md")]
    for title, name in tables:
        parts += [f"## {title}", (target / name).read_text(encoding="utf-8").strip()]
    parts += [*learnt(study), "## Figures"]
    for name in pictures:
        kind, _, rest = name.partition("-")
        title, caption = (TITLES | OWN_TITLES)[kind]
        parts.append(f"### {title}: {rest}\n\n{caption}\n\n![{title}]({name}.png)")
    return "\n\n".join(parts) + "\n"


def paper_page(study: Study, target: Path) -> None:
    """The page of the paper's tables and figures, with the networks and weights below."""
    files = paper.files(study, target)
    made = ["## How this was made", commands(study, target, "--paper "), *learnt(study)]
    files[PAGE] = "\n\n".join([str(files[PAGE]).rstrip(), *made]) + "\n"
    write_together({target / name: content for name, content in files.items()})


def reproduce(folder: Path, target: Path, experiments: bool = False) -> None:
    """Writes all files of the target folder; experiments: those of the paper's page."""
    study = load(folder)
    cases = tuned_cases(study)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "config.yaml", target / "config.yaml")
    for name, text in all_tables(study).items():
        if not name.endswith(".tex"):
            write_text(target / name, text)
    write_csv(target / "networks.csv", network_rows(study), NETWORK_COLUMNS)
    for case in cases:
        name = f"tuning-{case.problem}-{case.observation}-{case.run}-{case.percent}.csv"
        shutil.copy(tuning_path(study, **vars(case)), target / name)
    if experiments:
        paper_page(study, target)
        return
    pictures = {name: small_png(figure) for name, figure in draw(study, target)}
    write_together({target / f"{name}.png": picture for name, picture in pictures.items()})
    write_text(target / "README.md", page(study, target, list(pictures)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the finished study, results/<study>")
    parser.add_argument("target", type=Path, help="folder to write, for example docs/paper/poisson-64")
    parser.add_argument("--paper", action="store_true", help="the page of the paper's tables and figures instead")
    arguments = parser.parse_args()
    try:
        reproduce(arguments.study, arguments.target, arguments.paper)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
