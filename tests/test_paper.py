"""The paper's page, from samples whose errors are known: each run misses the truth by fields of a size of its own."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_attenuation import made_up
from test_evaluation import make_samples

from ddis.config import Case, Study
from ddis.data.store import Samples, write_samples
from ddis.errors import InputError
from ddis.evaluation import attenuation
from ddis.evaluation.paper.sections import SECTIONS
from ddis.files import write_csv
from ddis.sampling.methods import operator_of
from ddis.stages import paper, tables
from ddis.stages.experiments import paper_files, sections
from ddis.stages.layout import guidance_path, samples_path
from ddis.stages.records import outputs_of
from ddis.steps import Step

WHERE = {"observations": ["sparse"], "problems": ["poisson"]}
DDIS = {"method": "ddis", "steps": 8, "weight": 1, **WHERE}
FUNDPS = {"method": "fundps", "steps": 8, "weight": 10, **WHERE}
GUIDED = {"method": "ddis-gn", "samples": 4, **WHERE}
STUDY = {
    "study": "experiments",
    "problems": {
        "poisson": {"pde": "poisson"},
        "navier-stokes": {"pde": "navier-stokes"},
        "turbulent": {"pde": "navier-stokes", "viscosity": 1e-4},
    },
    "data": {"resolution": 16, "train": 1000, "validation": 20, "test": 6},
    "fractions": [0.01, 1.0],
    "observations": {"sparse": {"count": 32}, "fewer": {"count": 5}, "noisy": {"count": 32, "noise": 0.05}},
    "operators": {"physics-0.3": {"physics": {"pde": 0.3, "boundary": 30}}},
    "runs": {
        "ddis": {**DDIS, "problems": None},
        "ddis-gn": {**GUIDED, "observations": None},
        "fundps": FUNDPS,
        "exact": {"samples": 4, "problems": ["poisson"]},
        "ddis-observations": {**DDIS, "observations": ["fewer", "noisy"], "fractions": [1.0]},
        "ddis-physics": {**DDIS, "operator": "physics-0.3", "fractions": [0.01]},
        "ddis-dps": {**FUNDPS, "method": "ddis-dps", "fractions": [1.0]},
        "joint-daps": {**DDIS, "method": "joint-daps", "fractions": [1.0]},
        "ddis-gn-solver": {**GUIDED, "operator": "solver"},
        "ddis-gn-trusting": {**GUIDED, "error_model": "none"},
        "es-mda": {"samples": 4, "fractions": [1.0], **WHERE},
        "coarse": {**DDIS, "start_resolution": 8, "upsample_at": 4, "fractions": [1.0]},
        "ddis-2": {**DDIS, "steps": 2, "fractions": [1.0]},
    },
}


def error_of(case: Case) -> float:
    """Smaller with more pairs; all runs of a method alike, `ddis-gn` better than `ddis`, `fundps` worse."""
    size = {"ddis-gn": 0.15, "exact": 0.1, "fundps": 0.4}.get(case.run, 0.25)
    return size * {"1": 1.5, "100": 1.0}[case.percent]


def write_case(study: Study, case: Case) -> Samples:
    """The sample file of a case, as if its stage had made it."""
    settings = study.run_for(case)
    shared = {"seconds_per_sample": 0.1 * getattr(settings, "steps", 1), "prior_evaluations": 10.0, "operator_evaluations": 10.0}
    samples = make_samples(case.run, float(case.percent), settings.samples, error_of(case), seed=len(case.run), **shared)
    samples.attributes |= {"problem": case.problem, "pde": study.problems[case.problem].pde, "method": settings.method}
    samples.attributes |= {
        "observation": case.observation,
        "operator": operator_of(settings),
        "pairs": int(10 * float(case.percent)),
    }
    if settings.method in ("exact", "tikhonov") or "solver" in case.run:
        samples.attributes["pairs"] = None
    if case.observation == "fewer":
        samples.coefficient[2] = np.nan
    samples.attributes |= {"noise": study.observations[case.observation].noise}
    samples.attributes |= {"configuration": study.digest("sample", **vars(case))}
    path = samples_path(study, **vars(case))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_samples(path, samples)
    return samples


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """The study with its page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("paper"))
        patch.setenv("DDIS_TRACKING", "off")
        study = Study.load(STUDY)
        for case in study.cases():
            write_case(study, case)
        for problem in study.guided():
            path = guidance_path(study, problem)
            path.parent.mkdir(parents=True)
            write_csv(path, made_up(0.2, 1.0), attenuation.COLUMNS)
        tables.run(study)
        paper.run(study)
        study._folder = study.folder.absolute()
    return study


def row(study: Study, section: str, run: str) -> list[str]:
    """The cells of a run in the table of a section."""
    text = (study.folder / "paper" / "README.md").read_text().split(f"## {section}")[1].split("\n## ")[0]
    return [cell.strip() for cell in re.search(rf"^\|.*`{run}` \|.*$", text, re.MULTILINE)[0].strip("|").split("|")]


def test_the_page_has_every_section_and_every_file_that_is_promised(study):
    page = (study.folder / "paper" / "README.md").read_text()
    assert all(f"## {section.title}\n" in page for section in SECTIONS)
    assert page.count("Not in this study") == 0
    made = {path.name for path in (study.folder / "paper").iterdir()}
    assert made == set(paper_files(study)) == {path.name for path in outputs_of(study, Step("paper"))}
    assert set(re.findall(r"\]\(([^)]*)\)", page)) == made - {"README.md"}
    assert max(path.stat().st_size for path in (study.folder / "paper").glob("*.png")) < 300_000


def test_a_cell_is_the_error_that_the_samples_have_beside_the_published_one(study):
    samples = make_samples("ddis", 100.0, 1, 0.25, seed=4)
    truth = samples.coefficient_true.astype(float)
    errors = 100 * np.linalg.norm(samples.coefficient[:, 0] - truth, axis=(1, 2)) / np.linalg.norm(truth, axis=(1, 2))
    expected = f"{errors.mean():.1f} ± {errors.std(ddof=1) / 6**0.5:.1f}"
    assert row(study, "Main table", "ddis")[2] == f"{expected} (15.78)"
    assert row(study, "Time budgets", "ddis")[4] == f"{expected} (15.78)"
    assert row(study, "A coarser grid first", "ddis")[2] == f"{expected} (15.78)"


def test_a_figure_of_fewer_fields_says_so(study):
    section = (study.folder / "paper" / "README.md").read_text().split("## Fewer observations")[1].split("\n## ")[0]
    assert "ddis-observations at 100 % of pairs (poisson, fewer): 1 of 6 fields failed and are left out." in section


def test_guidance_has_its_section_with_the_verdicts(study):
    section = (study.folder / "paper" / "README.md").read_text().split("## Guidance attenuation")[1].split("\n## ")[0]
    assert re.search(r"guidance of the joint model is attenuated with 1 % of the pairs \|.*\| yes \|", section)


def test_published_figures_stand_beside_the_experiment_they_are_of_alone(study):
    assert row(study, "The equation in the operator's loss", "ddis-physics")[2].endswith("(16.56)")
    assert row(study, "The equation in the operator's loss", "ddis")[2].endswith("(18.7)")
    fewer, all_ = row(study, "Fewer observations", "ddis")[2:4]
    assert "(" not in fewer and all_.endswith("(15.78)")
    assert "(" not in row(study, "A coarser grid first", "coarse")[2]


def test_columns_follow_the_axis_and_settings_are_told(study):
    found = {section.name: section.places(entries) for section, entries in sections(study)}
    assert found["efficiency"] == [1, 100] and found["budgets"] == [32, 128]
    assert found["sparsity"] == [5, 32] and found["noise"] == [0, 0.05]
    assert found["turbulence"] == ["navier-stokes", "turbulent"]
    assert row(study, "Time budgets", "ddis")[-1] == "weight 1, steps 8, 2"
    assert row(study, "The operator's error against guidance", "ddis-gn-trusting")[-1] == "error_model none"
    table = pd.read_csv(study.folder / "paper" / "efficiency.csv")
    assert set(zip(table["run"], table["percent"], strict=True)) >= {("ddis", 1), ("ddis", 100), ("fundps", 1), ("fundps", 100)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [(1, r"errors\.csv lacks [a-z-]+/sparse/[a-z-]+/100; restore it"), (0, r"errors\.csv cannot be read as a table")],
)
def test_tables_that_are_not_whole_are_one_error(study, tmp_path, rows, message):
    lines = (study.folder / "tables" / "errors.csv").read_text().splitlines()
    (tmp_path / "errors.csv").write_text("\n".join([lines[0][: None if rows else 20], *lines[1 : 1 + rows], ""]))
    with pytest.raises(InputError, match=message):
        paper.files(study, tmp_path)


def test_a_section_without_its_runs_says_which_it_takes(study, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDIS_TRACKING", "off")
    runs = {name: STUDY["runs"][name] for name in ("ddis", "ddis-gn")}
    small = Study.load({**STUDY, "runs": runs, "problems": {"poisson": {"pde": "poisson"}}, "operators": {}})
    for case in small.cases():
        write_case(small, case)
    tables.run(small)
    paper.run(small)
    page = Path("results/experiments/paper/README.md").read_text()
    assert "Not in this study: it takes a run of the method `es-mda`, `eci` or `ofm`." in page
    assert {path.stem for path in Path("results/experiments/paper").glob("*.tex")} == {"main", "efficiency", "sparsity", "noise"}
