"""The reference points: `prior-mean` and `tikhonov` against closed forms, and through the stages. Seeds are stated where used."""

import numpy as np
import pytest
import torch
from batches import last_state, make_batch

from ddis.config import Study
from ddis.data.store import read_samples
from ddis.errors import InputError
from ddis.evaluation.scores import field_scores
from ddis.evaluation.table import error_row
from ddis.fields.noise import WhiteNoise
from ddis.grid import square
from ddis.models.normalisation import Normalisation
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.priors.gaussian import gaussian, moments
from ddis.randomness import generator
from ddis.sampling.base import Batch
from ddis.sampling.matrix_free import LeadingModes, MatrixFreeUpdate
from ddis.sampling.tikhonov import TOLERANCE, RandomisedFit
from ddis.stages import generate, sample

SIZE, SEED = 16, 11


def make_task(pde: str, chains: int, observed: int = 20, noise: float = 0.01, **parameters) -> Batch:
    """One observed field of a problem with a closed-form spectrum, seen through its solver."""
    torch.set_num_threads(1)
    problem = make_problem(pde, parameters, SIZE)
    fields = problem.solve(problem.sample_coefficients(range(17), SIZE, SEED))
    solution = Normalisation(float(fields[1:].mean()), float(fields[1:].std()))
    sensors = Nodes(draw_nodes(square(SIZE), observed, SEED, 0), noise * solution.std)
    generators = [generator(SEED, "chain", 0, number) for number in range(chains)]
    values = fields[0].flatten()[sensors.index]
    return make_batch(problem, gaussian(problem, WhiteNoise()), Solver(problem, solution), sensors, values, generators)


def draw(task: Batch, method: str, **settings) -> torch.Tensor:
    return last_state(task, method, **settings).x0


@pytest.mark.parametrize("pde", ["poisson", "helmholtz"])
def test_tikhonov_is_the_exact_posterior_with_the_exact_spectrum_and_solver(pde):
    """The same random numbers, so the same samples."""
    ours, exact = (make_task(pde, chains=8) for _ in range(2))
    samples = draw(ours, "tikhonov", samples=8), draw(exact, "exact", samples=8)
    assert float(samples[1].std()) > 0.1
    assert torch.allclose(*samples, atol=1e-5)


def test_tikhonov_finds_the_minimum_where_the_operator_is_not_linear():
    """Log-normal darcy: the gradient of Q vanishes at every sample, by automatic differentiation of Q itself."""
    task = make_task("darcy", chains=4, coefficient="log-normal", scale=1.5)
    fit = RandomisedFit(task, MatrixFreeUpdate(task, LeadingModes(task), TOLERANCE))
    while fit.iterate():
        pass
    start, end = (slope(task, fit, x) for x in (torch.zeros_like(fit.x), fit.x))
    assert (end < 1e-3 * start).all()
    samples = draw(task_again(task, 4), "tikhonov", samples=4, iterations=20)
    assert torch.allclose(samples, fit.samples(), atol=1e-5)


def task_again(task: Batch, chains: int) -> Batch:
    task.generators = [generator(SEED, "chain", 0, number) for number in range(chains)]
    return task


def slope(task: Batch, fit: RandomisedFit, x: torch.Tensor) -> torch.Tensor:
    """|C^(1/2) ∇Q| [B] at x [B, S, S] in the basis."""
    point = x.detach().requires_grad_()
    predicted = task.predict(task.basis.inverse(point))
    misfit = predicted.reshape(fit.target.shape) - fit.target
    inverse = torch.linalg.inv(task.observation.covariance)
    varies = fit.spectrum > 0
    value = torch.einsum("nki,nij,nkj->", misfit, inverse, misfit)
    value = value + ((point - fit.draw)[:, varies] ** 2 / fit.spectrum[varies]).sum()
    gradient = torch.autograd.grad(value, point)[0]
    return (gradient * fit.spectrum.sqrt()).flatten(1).norm(dim=1)


def test_a_chain_without_a_finite_prediction_is_lost_and_leaves_the_others_alone():
    whole, broken = make_task("poisson", chains=3), make_task("poisson", chains=3)
    operator = broken.operator

    def sometimes(x):
        out = operator(x)
        return torch.cat([out[:2], torch.full_like(out[2:], torch.nan)]) if len(x) == 3 else out

    broken.operator = sometimes
    expected, found = draw(whole, "tikhonov", samples=3), draw(broken, "tikhonov", samples=3)
    assert found[2].isnan().all() and torch.allclose(found[:2], expected[:2], atol=1e-5)


def test_moments_of_parts_are_those_of_the_whole():
    rows = 3 + torch.from_numpy(np.random.default_rng(2).standard_normal((50, 4, 4)))
    mean, variance = moments(iter(rows.split(7)))
    assert torch.allclose(mean, rows.mean(0)) and torch.allclose(variance, rows.var(0))


CONFIGURATION = {
    "study": "references",
    "device": "cpu",
    "problems": {"poisson": {"pde": "poisson"}, "darcy": {"pde": "darcy"}},
    "data": {"resolution": 12, "train": 1500, "validation": 2, "test": 10},
    "fractions": [0.5, 1.0],
    "observations": {"sparse": {"count": 30, "noise": 0.01}},
    "runs": {
        "prior-mean": {},
        "kriging": {"method": "tikhonov", "operator": "solver", "samples": 4, "iterations": 3},
        "tikhonov": {"problems": []},
        "exact": {"samples": 4, "problems": ["poisson"]},
    },
}


def test_references_through_the_stages(tmp_path, monkeypatch):
    """1,500 unpaired coefficients tell the spectrum of 12 x 12 modes to 4 % each: the samples are nearly those of `exact`."""
    monkeypatch.chdir(tmp_path)
    study = Study.load(CONFIGURATION)
    for problem in study.problems:
        for split in ("train", "test"):
            generate.run(study, problem, split)
    rows = {}
    for case in study.cases():
        sample.run(study, **vars(case))
        path = study.folder / "samples" / case.problem / "sparse" / f"{case.run}-100.h5"
        rows[case.problem, case.run] = error_row(field_scores(read_samples(path)), None)
    poisson, darcy = rows["poisson", "prior-mean"], rows["darcy", "prior-mean"]
    assert poisson["l2_mean"] == pytest.approx(100, abs=2) and poisson["coverage90"] is None and poisson["pairs"] is None
    assert darcy["l2_mean"] == pytest.approx(100 * 4.5 / np.sqrt(7.5**2 + 4.5**2), abs=4)  # |a - 7.5| = 4.5 everywhere
    ours, exact = rows["poisson", "kriging"], rows["poisson", "exact"]
    assert ours["l2_mean"] == pytest.approx(exact["l2_mean"], rel=0.05) and ours["coverage90"] == pytest.approx(0.9, abs=0.05)
    assert ours["operator"] == "solver" and ours["pairs"] is None and ours["prior_evaluations"] == 0
    assert rows["darcy", "kriging"]["l2_mean"] < 0.8 * darcy["l2_mean"]


def test_which_pairs_and_models_the_references_need():
    study = Study.load(CONFIGURATION)
    assert [study.percents(run) for run in study.runs] == [["100"], ["100"], ["50", "100"], ["100"]]
    assert [study.models_of(run, "50") for run in study.runs] == [[], [], ["operator-50"], []]
    with pytest.raises(InputError, match=r"runs\.prior-mean\.samples.*less than or equal to 1"):
        Study.load({**CONFIGURATION, "runs": {"prior-mean": {"samples": 4}}})
