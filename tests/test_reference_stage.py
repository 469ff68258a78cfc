"""Reference posteriors as a stage of a small study, in closed form and by Markov chains, and the table of distances to them."""

import io
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from ddis.config import Study
from ddis.data.references import read_references
from ddis.data.store import read_samples
from ddis.errors import InputError
from ddis.evaluation.metrics import relative_l2
from ddis.evaluation.posteriors import FLOOR, METRICS
from ddis.grid import Space, square
from ddis.models.checkpoint import save_tensors
from ddis.references.chains import Chains, State
from ddis.stages import generate, needs, reference, sample, tables
from ddis.stages.layout import DISTANCES, TABLES, reference_path, samples_path
from ddis.stages.records import outputs_of, steps
from ddis.stages.stale import work
from ddis.steps import Step

CONFIG = {
    "study": "referenced",
    "seed": 3,
    "device": "cpu",
    "problems": {
        "poisson": {"pde": "poisson"},
        "wide": {"pde": "poisson", "aspect": 2},
        "rock": {"pde": "darcy", "coefficient": "log-normal"},
    },
    "data": {"resolution": 16, "train": 32, "validation": 4, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": 20, "noise": 0.1}},
    "runs": {
        "exact": {"samples": 16, "problems": ["poisson"]},
        "exact-40": {"method": "exact", "samples": 40, "problems": ["poisson"]},
        "exact-48": {"method": "exact", "samples": 48, "problems": ["poisson"]},
        "prior-mean": {},
        "tikhonov": {"samples": 8, "operator": "solver"},
    },
    "references": {"samples": 64, "burn_in": 200, "steps": 1000},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """All of it but the networks, which it has none of, and the figures."""
    torch.set_num_threads(1)
    made = Study.load(CONFIG)
    made._folder = tmp_path_factory.mktemp("referenced") / "results" / made.study
    for problem in made.problems:
        for split in ("train", "validation", "test"):
            generate.run(made, problem, split)
        reference.run(made, problem, "sparse")
    for case in made.cases():
        sample.run(made, **vars(case))
    tables.run(made)
    return made


def table(study: Study, name: str) -> pd.DataFrame:
    return pd.read_csv(study.folder / "tables" / name)


def changed(study: Study, folder: Path, **references: object) -> Study:
    """The study with other settings of references, on the same data, its results elsewhere."""
    made = Study.load({**CONFIG, "checkpoint_seconds": 0, "references": {**CONFIG["references"], **references}})
    made._folder = folder / "results" / made.study
    shutil.copytree(study.folder / "data", made.folder / "data")
    return made


def test_closed_form_references_are_independent_draws_with_the_moments_of_exact(study):
    """64 draws: the error of their mean is std / 8 at every node, within 30 % over two fields of correlated nodes."""
    found, exact = read_references(reference_path(study, "poisson", "sparse")), read_samples(samples_path(study, *POISSON))
    assert found.attributes["kind"] == "closed-form" and found.converged.all()
    assert found.coefficient.shape == (2, 64, 16, 16) and np.allclose(found.weight.sum(axis=1), 1)
    assert np.allclose(found.mean, exact.mean, atol=1e-5) and np.allclose(found.std, exact.std, atol=1e-5)
    error = (found.coefficient.mean(axis=1) - found.mean) / (found.std / 8)
    assert np.sqrt(np.square(error).mean()) == pytest.approx(1, abs=0.3)
    assert not np.isin(found.coefficient[0, :, 0, 0], exact.coefficient[0, :, 0, 0]).any()


POISSON = ("poisson", "sparse", "exact", "100")


def test_chains_are_certified_and_say_how_much_they_are_worth(study):
    found = read_references(reference_path(study, "rock", "sparse"))
    told = found.attributes
    assert (told["kind"], told["likelihood"]) == ("mcmc", "gaussian")
    assert found.converged.all() and max(told["r_hat"]) <= 1.01 and min(told["ess"]) >= 400
    assert told["steps"] == [1000] * 2 and (found.coefficient > 0).all()
    error = (found.coefficient.mean(axis=1) - found.mean) / (found.std / 8)
    assert np.sqrt(np.square(error).mean()) == pytest.approx(1, abs=0.4)


def test_the_table_of_distances_has_every_run_and_the_floor_of_its_number_of_samples(study):
    found = table(study, "posterior.csv")
    assert [*zip(found["problem"], found["run"], found["n_samples"], strict=True)] == [
        *(
            ("poisson", run, k)
            for run, k in (("exact", 16), ("exact-40", 40), ("exact-48", 48), ("prior-mean", 1), ("tikhonov", 8))
        ),
        *(("poisson", FLOOR, k) for k in (16, 32, 1, 8)),  # half of the 64 draws at most
        *(("wide", run, k) for run, k in (("prior-mean", 1), ("tikhonov", 8))),
        *(("wide", FLOOR, k) for k in (1, 8)),
        *(("rock", run, k) for run, k in (("prior-mean", 1), ("tikhonov", 8))),
        *(("rock", FLOOR, k) for k in (1, 8)),
    ]
    assert (found["n_fields"] == 2).all()
    for name in METRICS:
        known = found[(found["n_samples"] > 1) | (name != "std")]
        assert (known[f"{name}_low"] <= known[name]).all() and (known[name] <= known[f"{name}_high"]).all()
    assert found[found["n_samples"] == 1]["std"].isna().all()
    rows = found.set_index(["problem", "run", "n_samples"])
    assert rows["mean"]["poisson", "exact", 16] < 1.5 * rows["mean"]["poisson", FLOOR, 16]
    assert rows["mmd"]["poisson", "prior-mean", 1] > 1.2 * rows["mmd"]["poisson", FLOOR, 1]


def test_where_there_is_no_closed_form_the_limit_is_the_error_of_the_references_mean(study):
    errors = table(study, "errors.csv").set_index(["problem", "run"])["l2_limit"]
    found = read_references(reference_path(study, "rock", "sparse"))
    truth = read_samples(samples_path(study, "rock", "sparse", "tikhonov", "100")).coefficient_true
    assert errors["rock", "tikhonov"] == pytest.approx(100 * relative_l2(found.mean, truth).mean(), rel=1e-5)
    assert errors["poisson", "exact"] == errors["poisson", "tikhonov"]
    text = (study.folder / "tables" / "errors.md").read_text()
    assert "Reference of rock, sparse: mcmc, likelihood gaussian, 2 of 2 fields converged, Monte Carlo error" in text


def test_finished_references_are_not_made_again_until_a_setting_changes(study):
    assert not {label for label in work(study) if label.startswith("reference/")}
    other = Study.load({**CONFIG, "references": {**CONFIG["references"], "steps": 2000}})
    other._folder = study.folder
    assert "reference/rock/sparse" in work(other) and "tables" in work(other)


def test_chains_that_cannot_converge_are_marked_left_out_and_named_in_one_line(study, tmp_path, caplog):
    made = changed(study, tmp_path, steps=100, burn_in=100)
    reference.run(made, "rock", "sparse")
    found = read_references(reference_path(made, "rock", "sparse"))
    assert not found.converged.any()
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([line for line in lines if "2 of 2 test fields have not converged" in line]) == 1
    assert "references.steps more than 100" in lines[-1]
    row = tables.Compared("rock", "sparse", found, Space(square(16))).floor_row(8)
    assert row["n_fields"] == 0 and row["mean"] is None
    text = tables.distance_tables(made, [row], ["0 of 2 fields converged."])["posterior.md"]
    assert "has converged for any field. 0 of 2 fields" in text and "|" not in text


def test_killed_chains_go_on_where_they_were(study, tmp_path, monkeypatch):
    made = changed(study, tmp_path, steps=100, burn_in=100, chains=4, samples=8)
    reference.run(made, "rock", "sparse")
    whole = read_references(reference_path(made, "rock", "sparse"))
    reference_path(made, "rock", "sparse").unlink()
    steps, advance = [], Chains.advance

    def counted(self, state):
        steps.append(state.step)
        if len(steps) == 130:
            raise KeyboardInterrupt
        advance(self, state)

    monkeypatch.setattr(Chains, "advance", counted)
    with pytest.raises(KeyboardInterrupt):
        reference.run(made, "rock", "sparse")
    reference.run(made, "rock", "sparse")
    again = read_references(reference_path(made, "rock", "sparse"))
    assert len(steps) < 130 + 200 - 110
    for name in ("coefficient", "mean", "std"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))


def test_chains_of_a_version_with_other_fields_start_anew(tmp_path, caplog):
    state = State(**{item.name: torch.zeros(1) for item in fields(State) if item.type is Tensor}, step=30)
    path, counters = tmp_path / "chains.safetensors", state.counters() | {"seconds": 2.0}
    save_tensors(path, state.tensors(), counters)
    found, seconds = reference.unfinished(tmp_path)
    assert found is not None and found.step == 30 and seconds == 2.0
    save_tensors(path, {name: tensor for name, tensor in state.tensors().items() if name != "level"}, counters)
    with caplog.at_level("INFO"):
        assert reference.unfinished(tmp_path) == (None, 0.0)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: chains of another version of ddis; they start anew"]


@pytest.mark.parametrize("pde", ["darcy", "darcy-facies"])
def test_a_job_asks_for_the_time_of_walks(pde):
    """32 x 32 nodes: 16 walking chains of two-valued darcy took up to 0.107 s a step."""
    problems = {"smooth": {"pde": "darcy", "coefficient": "log-normal"}, "jumps": {"pde": pde}}
    data = {**CONFIG["data"], "resolution": 32}
    made = Study.load(
        {**CONFIG, "data": data, "problems": problems, "runs": {"tikhonov": {}}, "references": {"burn_in": 1000, "steps": 20_000}}
    )
    labels = [{"problem": problem, "observation": "sparse"} for problem in problems]
    smooth, jumps = (needs.minutes(made, "reference", **label) for label in labels)
    assert smooth < 2 * 21_000 * 0.107 / 60 < jumps


def test_without_references_nothing_of_a_study_knows_of_them():
    plain = Study.load({key: value for key, value in CONFIG.items() if key != "references"})
    assert "references" not in plain.resolved() and not plain.reference_cases()
    assert "references" not in plain.inputs("tables")
    assert not any(step.stage == "reference" for step in steps(plain))
    names = [path.name for path in outputs_of(plain, Step("tables"))]
    assert names == list(TABLES) and not set(DISTANCES) & set(names)
    asked = Study.load(CONFIG)
    for case in plain.cases():
        assert plain.digest("sample", **vars(case)) == asked.digest("sample", **vars(case))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 250}, r"samples 250; accepted: multiples of chains, 16, up to 80000"),
        ({"chains": 5}, r"references.chains: .*multiple of 2"),
        ({"steps": 10}, r"references.steps: .*greater than or equal to 100"),
        ({"fields": 4}, r"references.fields 4; accepted: at most data.test, 2"),
        ({"problems": ["stone"]}, r"references.problems: stone; accepted: poisson, wide, rock"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Study.load({**CONFIG, "references": settings})


def test_a_kernel_and_gaussian_errors_beside_each_other_in_one_study(tmp_path):
    """m = 20, poisson's mixture. `exact` is given the Gaussian that stands for the kernel: it is near the kernel's own draws."""
    sparse = {"count": 20, "noise": 0.03}
    asked = {"observations": {"noise": sparse, "kernel": {**sparse, "likelihood": "mean-absolute"}}}
    problems = {"poisson": {"pde": "poisson", "alpha": [1.5, 3.0], "tau": [2.0, 4.0]}}
    made = Study.load({**CONFIG, **asked, "problems": problems, "runs": {"exact": {"samples": 64}}})
    made._folder = tmp_path / "results" / made.study
    for split in ("train", "validation", "test"):
        generate.run(made, "poisson", split)
    for observation in made.observations:
        reference.run(made, "poisson", observation)
        sample.run(made, "poisson", observation, "exact", "100")
    tables.run(made)
    noise, kernel = (read_references(reference_path(made, "poisson", observation)) for observation in made.observations)
    assert [found.attributes["kind"] for found in (noise, kernel)] == ["mixture", "kernel"]
    assert kernel.converged.all() and min(kernel.attributes["ess"]) > 64 and kernel.coefficient.shape == noise.coefficient.shape
    assert (kernel.std.mean(axis=(1, 2)) > 1.2 * noise.std.mean(axis=(1, 2))).all()
    rows = pd.read_csv(made.folder / "tables" / "posterior.csv").set_index(["observation", "run"])
    assert rows["mmd"]["kernel", "exact"] < 1.5 * rows["mmd"]["kernel", FLOOR]
    assert (rows["minutes"].notna() == [run != FLOOR for _, run in rows.index]).all()
    text = (made.folder / "tables" / "posterior.md").read_text()
    assert "| poisson |  | DDIS, published |  |  |  | 0.0997 | 0.32 | 0.264 | 2.24 | 0.0702 | 9.6 |" in text
    assert "128 x 128 nodes, 128 sensors" in text and "published" not in (made.folder / "tables" / "posterior.csv").read_text()


def test_likelihoods_that_cannot_be_are_refused():
    for sparse, message in (
        ({"count": 20, "likelihood": "uniform"}, r"observations.sparse.likelihood: .*mean-absolute"),
        ([{"count": 20}, {"count": 5, "likelihood": "mean-absolute"}], r"accepted: the same for all"),
    ):
        with pytest.raises(InputError, match=message):
            Study.load({**CONFIG, "observations": {"sparse": sparse}})


def test_tables_read_the_csv_that_they_write(study):
    text = (study.folder / "tables" / "posterior.csv").read_text()
    assert len(pd.read_csv(io.StringIO(text))) == text.count("\n") - 1
    assert r"\label{tab:posterior}" in (study.folder / "tables" / "posterior.tex").read_text()
