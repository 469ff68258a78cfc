"""Where the files of a study lie, and which there are. Imports nothing heavy: the workflow asks it too."""

from pathlib import Path

from ddis.config import Study

TABLES = (
    *("errors.csv", "errors.md", "errors.tex", "limit.csv", "limit.md", "split.csv", "claims.csv", "claims.md"),
    *("calibration.csv", "calibration.md"),
)

DISTANCES = ("posterior.csv", "posterior.md", "posterior.tex")  # of studies with references


def data_path(study: Study, problem: str, split: str) -> Path:
    return study.folder / "data" / problem / f"{split}.h5"


def model_folder(study: Study, problem: str, model: str) -> Path:
    return study.folder / "models" / problem / model


def samples_path(study: Study, problem: str, observation: str, run: str, percent: str) -> Path:
    return study.folder / "samples" / problem / observation / f"{run}-{percent}.h5"


def reference_path(study: Study, problem: str, observation: str) -> Path:
    return study.folder / "references" / problem / f"{observation}.h5"


def table_names(study: Study) -> tuple[str, ...]:
    """Files of tables/."""
    return TABLES + DISTANCES if study.reference_cases() else TABLES


def tuning_path(study: Study, problem: str, observation: str, run: str, percent: str) -> Path:
    return study.folder / "tuning" / problem / observation / f"{run}-{percent}.csv"


def check_path(study: Study, problem: str, observation: str, run: str, percent: str) -> Path:
    return study.folder / "models" / problem / "checks" / observation / f"{run}-{percent}.json"


def guidance_path(study: Study, problem: str) -> Path:
    return study.folder / "guidance" / problem / "gradients.csv"


def figure_names(study: Study) -> list[str]:
    """File names of the figures of a study."""
    kinds = ("gallery", "spectra", "fractions", "calibration", "ranks", "sbc")
    per_case = [f"{kind}-{p}-{o}" for p, o in groups(study) for kind in (*kinds, *["limit"] * has_limit(study, p, o))]
    per_problem = [f"training-{p}" for p in study.problems if models(study, p)]
    priors = [f"prior-{p}" for p in study.problems if "prior" in models(study, p)]
    return [f"{name}.png" for name in per_case + per_problem + priors]


def has_limit(study: Study, problem: str, observation: str) -> bool:
    """Whether exact samples are drawn there, to compare the others with."""
    cases = [case for case in study.cases() if (case.problem, case.observation) == (problem, observation)]
    return any(study.runs[case.run].method == "exact" for case in cases)


def groups(study: Study) -> list[tuple[str, str]]:
    """(problem, observation) pairs that have runs."""
    return list(dict.fromkeys((case.problem, case.observation) for case in study.cases()))


def models(study: Study, problem: str) -> list[str]:
    """Names of the models that the runs on a problem need."""
    needed = (m for case in study.cases() if case.problem == problem for m in study.models_of(case.run, case.percent))
    return list(dict.fromkeys(needed))
