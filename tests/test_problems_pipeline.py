"""Helmholtz, darcy and navier-stokes through every stage of one tiny study, in this process, and what their results must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from stages import run_all

from ddis.config import Case, Study
from ddis.data.store import Samples, read_pairs, read_samples
from ddis.evaluation import metrics
from ddis.evaluation.scores import field_scores
from ddis.evaluation.table import error_row, from_csv
from ddis.operators.solver import or_nan
from ddis.pde import make_problem
from ddis.sampling.gauss_newton import gaussian_update
from ddis.stages import sample
from ddis.stages.layout import data_path, figure_names, models, samples_path
from ddis.stages.sampler import Sampler, observe
from ddis.trained import load_network

PROBLEMS = ("helmholtz", "darcy", "navier-stokes", "log-normal")
LEARNT = PROBLEMS[:3]
NODES, NOISE, STEPS, ITERATIONS, K = 20, 0.01, 4, 2, 4
BACKBONE = {"channels": [8, 8], "blocks": [1, 1], "embedding": 8}
TRAINING = {"steps": 12, "batch": 8, "validate_every": 4}
CONFIGURATION: dict[str, Any] = {
    "study": "problems",
    "device": "cpu",
    "problems": {
        "helmholtz": {"pde": "helmholtz", "k": 6.0},
        "darcy": {"pde": "darcy"},
        "navier-stokes": {"pde": "navier-stokes"},
        "log-normal": {"pde": "darcy", "coefficient": "log-normal"},
    },
    "data": {"resolution": 16, "train": 64, "validation": 20, "test": 2},
    "fractions": [1.0],
    "observations": {"sparse": {"count": NODES, "noise": NOISE}},
    "prior": {"backbone": BACKBONE, "training": TRAINING},
    "joint": {"backbone": BACKBONE, "training": TRAINING},
    "operator": {"network": {"modes": 4, "width": 4, "layers": 2}, "training": TRAINING},
    "runs": {
        "ddis": {"steps": 3, "langevin_steps": 2, "weight": 1, "problems": LEARNT},
        "ddis-gn": {"samples": 2, "steps": 3, "problems": LEARNT},
        "solver": {"method": "ddis-gn", "operator": "solver", "samples": K, "steps": STEPS, "iterations": ITERATIONS},
        "fundps": {"steps": 6, "weight": 10, "residual_weight": 0.01, "problems": LEARNT},
        "exact": {"samples": K, "problems": ["helmholtz"]},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The finished study, with its folder as the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("problems"))
        made = Study.load(CONFIGURATION)
        run_all(made)
        yield made


def samples(study: Study, problem: str, run: str) -> Samples:
    return read_samples(samples_path(study, problem, "sparse", run, "100"))


def table(study: Study) -> pd.DataFrame:
    return pd.DataFrame(from_csv(study.folder / "tables" / "errors.csv")).set_index(["problem", "run"])


def test_every_stage_has_written_its_files(study: Study) -> None:
    rows = table(study)
    assert sorted(rows.index) == sorted((case.problem, case.run) for case in study.cases()) and len(rows) == 14
    assert (rows["n_failed"] == 0).all() and rows["l2_sample"].notna().all() and rows["misfit"].notna().all()
    assert models(study, "darcy") == ["prior", "operator-100", "joint-100"] and models(study, "log-normal") == ["prior"]
    for name in figure_names(study):
        assert (study.folder / "figures" / name).stat().st_size > 1000, name
    for problem in PROBLEMS:
        made = study.make_problem(problem)
        written = yaml.safe_load((study.folder / "data" / problem / "card.yaml").read_text())
        assert made.equation in str(written) and made.boundary in str(written) and made.distribution in str(written)
        assert len(pd.read_csv(study.folder / "data" / problem / "pairs-100.csv")) == 64


@pytest.mark.parametrize("problem", PROBLEMS)
def test_stored_pairs_solve_the_equation_and_truths_are_those_of_the_test_split(study: Study, problem: str) -> None:
    made, stored = study.make_problem(problem), read_pairs(data_path(study, problem, "test"))
    a, u = (torch.from_numpy(f).double() for f in (stored.coefficient, stored.solution))
    zero = made.residual(a, torch.zeros_like(u)).norm()
    assert made.residual(a, u).norm() < 1e-4 * zero  # float32 storage
    drawn = samples(study, problem, "solver")
    assert np.array_equal(drawn.coefficient_true, stored.coefficient) and np.array_equal(drawn.solution_true, stored.solution)
    noise = np.where(drawn.mask, drawn.observation - drawn.solution_true, 0)
    level = np.sqrt((noise**2).sum() / (2 * NODES)) / read_pairs(data_path(study, problem, "train")).solution.std()
    assert level == pytest.approx(NOISE, rel=4 / np.sqrt(2 * 2 * NODES))  # four standard errors
    assert (drawn.mask.sum((1, 2)) == NODES).all()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_stored_solutions_are_those_of_the_samples(study: Study, problem: str) -> None:
    made = study.make_problem(problem)
    for case in study.cases():
        if case.problem == problem:
            drawn = samples(study, problem, case.run)
            assert drawn.solution is not None
            expected = made.solve(torch.from_numpy(drawn.coefficient).double()).numpy()
            assert np.abs(drawn.solution - expected).max() < 1e-5 * np.abs(expected).max(), case


@pytest.mark.parametrize("problem", PROBLEMS)
def test_gauss_newton_with_the_solver_fits_the_observations(study: Study, problem: str) -> None:
    """Against coefficients that know nothing of the observations: the prior's draws, or other fields of the data set."""
    made, drawn = study.make_problem(problem), samples(study, problem, "solver")
    scale = float(drawn.solution_true.astype(np.float64).std())
    draws = made.solve(made.sample_coefficients(range(32), 16, seed=77)).numpy()[None].repeat(2, 0)
    own, other = (metrics.misfit(u, drawn.observation, drawn.mask, scale) for u in (drawn.solution, draws))
    assert own.mean() < 0.15 * other.mean() and own.max() < 0.5 * other.mean(), (own, other.mean())


@pytest.mark.parametrize("problem", PROBLEMS)
def test_non_linear_problems_have_a_jacobian_at_each_chains_own_point(study: Study, problem: str) -> None:
    """By the operator's evaluations: a shared Jacobian takes 2 per row, and one prediction per iteration, the start's too."""
    drawn = samples(study, problem, "solver")
    assert drawn.attributes["operator"] == "solver" and drawn.attributes["pairs"] is None
    assert drawn.attributes["prior_evaluations"] == STEPS
    shared = (STEPS + 1) * ITERATIONS + 2 * drawn.mask.any(0).sum() / (2 * K)
    evaluations = drawn.attributes["operator_evaluations"]
    assert evaluations == shared if problem == "helmholtz" else evaluations > 2 * shared


@pytest.mark.parametrize("problem", LEARNT)
def test_a_run_that_models_the_operators_error_multiplies_its_modes_by_the_gains(study: Study, problem: str) -> None:
    case = Case(problem, "sparse", "ddis-gn", "100")
    torch.manual_seed(0)
    x = torch.randn(2, 16, 16)
    for model in ("none", "white", "spectral"):
        sampler = Sampler(study, case, study.run_for(case).model_copy(update={"error_model": model}))
        posterior = sampler.posterior(observe(study, case, "test", np.arange(2)))
        operator, modes = posterior.operator, posterior.bases[1]
        assert operator.error is not None and operator.error.gain is not None
        plain = operator.solution.normalise(operator(posterior.physical(x)))
        gain = operator.error.gain.float()
        expected = modes.inverse(gain * modes.forward(plain)) if model == "spectral" else plain
        assert torch.equal(posterior.predict(x, posterior.error(sampler.method.error_model)), expected)
    assert not torch.allclose(expected, plain, rtol=0.01)


@pytest.mark.parametrize("run", ["ddis", "ddis-gn", "solver", "fundps", "exact"])
def test_helmholtz_samples_are_zero_at_the_boundary_and_nowhere_else(study: Study, run: str) -> None:
    drawn = samples(study, "helmholtz", run)
    edge = np.ones((16, 16), dtype=bool)
    edge[1:-1, 1:-1] = False
    assert (drawn.coefficient[..., edge] == 0).all() and (drawn.mean[..., edge] == 0).all()
    single = drawn.coefficient.shape[1] == 1  # one sample has no standard deviation
    assert np.isnan(drawn.std).all() if single else (drawn.std[..., edge] == 0).all()
    assert (drawn.coefficient[..., ~edge] != 0).all() and not drawn.mask[:, edge].any()


def test_exact_is_the_limit_of_helmholtz_and_only_its(study: Study) -> None:
    rows = table(study)
    assert rows["l2_limit"].notna().groupby("problem").all().to_dict() == {p: p == "helmholtz" for p in PROBLEMS}
    exact = rows.loc[("helmholtz", "exact")]
    # The mean of K posterior draws is off by the spread over sqrt(K), so is its error: sqrt(1 + 1/K) times the limit.
    assert exact["l2_limit"] < exact["l2_mean"] < 1.3 * exact["l2_limit"]
    assert exact["misfit"] == pytest.approx(NOISE, rel=0.3)


@pytest.mark.parametrize("run", ["ddis", "ddis-gn", "solver", "fundps"])
def test_darcy_samples_lie_between_its_two_values(study: Study, run: str) -> None:
    drawn = samples(study, "darcy", run)
    assert set(np.unique(drawn.coefficient_true)) == {3.0, 12.0}
    assert drawn.coefficient.min() >= 3 and drawn.coefficient.max() <= 12 and drawn.coefficient.std() > 0.1


def test_log_normal_samples_are_positive_and_not_cut_off(study: Study) -> None:
    drawn = samples(study, "log-normal", "solver")
    assert drawn.coefficient.min() > 0 and (drawn.coefficient < 1).any() and (drawn.coefficient > 1).any()
    assert len(np.unique(drawn.coefficient)) > 0.99 * drawn.coefficient.size


def test_error_rates_are_those_of_two_valued_coefficients_only(study: Study) -> None:
    rates = table(study)["error_rate"]
    assert rates.notna().groupby("problem").all().to_dict() == {p: p == "darcy" for p in PROBLEMS}
    drawn = samples(study, "darcy", "solver")
    wrong = (drawn.coefficient >= 7.5) != (drawn.coefficient_true[:, None] >= 7.5)
    assert rates["darcy", "solver"] == pytest.approx(100 * wrong.mean(), abs=1e-6)


def test_navier_stokes_is_periodic_throughout(study: Study) -> None:
    device = torch.device("cpu")
    operators = {p: load_network(study, p, "operator-100", device).network for p in LEARNT}
    assert {p: network.periodic for p, network in operators.items()} == {
        "helmholtz": (False, False),
        "darcy": (False, False),
        "navier-stokes": (True, True),
    }
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = {}
    for problem in LEARNT:
        prior = load_network(study, problem, "prior", device).network
        there, back = (prior(f, torch.ones(1)) for f in (x.roll((4, 6), (-2, -1)), x))
        moved[problem] = float((there.roll((-4, -6), (-2, -1)) - back).abs().max())
    assert moved["navier-stokes"] < 1e-5 < 1e-3 < min(moved["helmholtz"], moved["darcy"]), moved
    assert samples(study, "navier-stokes", "solver").mask[:, [0, -1]].any()


def test_the_spectrum_of_the_navier_stokes_prior_is_that_of_fourier_modes(study: Study) -> None:
    """Against the formula, for the 24 modes |k| < 3 that carry the variance; in the cosine basis they would be others."""
    trained = load_network(study, "navier-stokes", "prior", torch.device("cpu"))
    formula = study.make_problem("navier-stokes").prior_spectrum(16)
    assert trained.spectrum is not None and formula is not None
    normalised = formula * (0.5 / trained.coefficient.std) ** 2
    large = formula > formula.max() / 20
    ratio = trained.spectrum[large] / normalised[large]
    assert trained.spectrum[0, 0] < 1e-9
    # chi-squared with 63 degrees of freedom: standard deviation 0.18
    assert abs(ratio.mean() - 1) < 0.15 and (ratio - 1).abs().max() < 0.75, ratio


# The study has no trained operator for the log-normal problem.
WITH_OPERATOR = [(p, o) for p in PROBLEMS for o in ("fno", "solver") if (p, o) != ("log-normal", "fno")]


@pytest.mark.parametrize(("problem", "operator"), WITH_OPERATOR)
def test_chains_that_diverge_are_failed_fields_and_not_the_end_of_the_run(study: Study, problem: str, operator: str) -> None:
    wild = {"method": "ddis", "operator": operator, "steps": 4, "langevin_steps": 5, "weight": 1e15, "learning_rate": 1e6}
    other = Study.load({**CONFIGURATION, "runs": {"wild": wild}})
    sample.run(other, problem, "sparse", "wild", "100")
    row = error_row(field_scores(samples(other, problem, "wild")), None)
    assert row["n_fields"] == 2 and row["n_failed"] in (0, 2)
    samples_path(other, problem, "sparse", "wild", "100").unlink()


def test_a_coefficient_that_the_solver_refuses_leaves_the_others_alone(study: Study) -> None:
    for problem in ("darcy", "log-normal"):
        made = study.make_problem(problem)
        a = made.sample_coefficients(range(4), 16, seed=0)
        broken = a.clone()
        broken[1, 3, 3], broken[2, 5, 5] = np.nan, -1.0
        u = or_nan(made.solve, broken.requires_grad_())
        assert u[1].isnan().all() and u[2].isnan().all() and torch.equal(u[[0, 3]], made.solve(a)[[0, 3]])
        (gradient,) = torch.autograd.grad(u.sum(), broken)
        assert gradient[[0, 3]].isfinite().all()


def test_a_residual_that_the_problem_refuses_leaves_the_others_alone() -> None:
    """Navier-stokes marches to find its residual, and one field is too fast for the step that is asked for."""
    made = make_problem("navier-stokes", {"time": 0.05, "step": 0.01})
    a = made.sample_coefficients(range(3), 16, seed=0)
    u, fast = made.solve(a), a.clone()
    fast[1] *= 1e4
    found = or_nan(made.residual, fast, u)
    assert found[1].isnan().all() and torch.equal(found[[0, 2]], made.residual(a, u)[[0, 2]])


def test_a_chain_without_a_jacobian_leaves_the_others_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, residual = (torch.randn(3, n, m, dtype=torch.float64, generator=generator) for n, m in ((5, 16), (2, 5)))
    noise, variance = torch.eye(5, dtype=torch.float64).expand(3, 5, 5), torch.ones(16, dtype=torch.float64)
    expected = gaussian_update(rows, variance, noise, residual)
    rows[1, 0, 0] = torch.nan
    update = gaussian_update(rows, variance, noise, residual)
    assert update[1].isnan().all() and torch.equal(update[[0, 2]], expected[[0, 2]])


def test_only_paths_of_the_study_were_written(study: Study) -> None:
    assert {p.name for p in Path.cwd().iterdir()} <= {"results"} and not list((study.folder / "work").rglob("*.safetensors"))
