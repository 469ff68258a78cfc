"""Poisson with the square of its solution observed: a and -a alike, in the problem, in chains and in tables."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ddis.config import Study
from ddis.evaluation.modes import mode_columns
from ddis.inputs import versions_of
from ddis.observe.base import Functionals
from ddis.pde import make_problem
from ddis.randomness import generator
from ddis.references.chains import Budget, Chains
from ddis.references.latent import Latent
from ddis.stages import generate, train, tune
from ddis.stages.layout import tuning_path
from ddis.stages.sampler import Sampler

SEED = 5


def test_the_solution_is_the_square_and_does_not_see_the_sign():
    problem, plain = make_problem("poisson-squared", {}), make_problem("poisson", {})
    a = problem.sample_coefficients(range(3), 24, SEED)
    v = problem.solve(a)
    assert torch.equal(a, plain.sample_coefficients(range(3), 24, SEED))
    assert torch.allclose(v, plain.solve(a) ** 2) and torch.equal(v, problem.solve(-a))
    assert (problem.residual(a, v) == 0).all() and problem.even and not problem.has_closed_form and not plain.even
    assert torch.autograd.gradcheck(problem.solve, (a[:1, :5, :5].clone().requires_grad_(),), eps=1e-4, atol=1e-7)


def test_chains_draw_both_signs_and_their_spread_is_that_of_weighted_prior_draws():
    """4 x 4 nodes, all four inner ones observed with noise of 60 % of std(v); 100,000 prior draws are worth thousands."""
    problem = make_problem("poisson-squared", {}, 4)
    solution = problem.solve(problem.sample_coefficients(range(200), 4, SEED))
    noise = 0.6 * float(solution[:, 1:-1, 1:-1].std())
    index = torch.tensor([[5, 6, 9, 10]])
    values = solution[:1].flatten(1)[:, index[0]] + noise * torch.from_numpy(generator(SEED, "noise").standard_normal((1, 4)))
    functionals = Functionals(torch.arange(16)[:, None], None, 16)
    latent = Latent(problem, functionals, index, values, torch.full((1, 4), noise**2, dtype=torch.float64))
    z = torch.randn(100_000, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
    weight = (-latent.misfit(latent.predict(z[None]))[0]).softmax(dim=0)
    expected = (weight @ latent.coefficient(z).square().flatten(1)).sqrt().reshape(4, 4)
    chains = Chains(latent, Budget(samples=64, chains=16, burn_in=300, steps=2000), SEED, [0])
    [found] = [reference for _, ended in chains.run() for _, reference in ended]
    assert found.diagnosis.converged and (found.mean == 0).all()
    assert torch.allclose(found.std, expected, rtol=0.06)
    leading = latent.spectrum.flatten().argmax()
    signs = problem.coefficient_space(4).grid.basis.forward(found.draws).flatten(1)[:, leading] > 0
    assert abs(float(signs.double().mean()) - 0.5) < 0.2


def test_shares_of_modes_against_their_definition():
    """Three fields of four samples: 4, 2 and 1 at the truth's sign; pairs counted one by one."""
    flags = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
    found = mode_columns(flags)
    pairs = [np.mean([row[i] != row[j] for i in range(4) for j in range(i)]) for row in flags]
    assert found["mode_share"] == pytest.approx(7 / 12) and found["mode_pairs"] == pytest.approx(np.mean(pairs))
    assert found["mode_share_low"] < 7 / 12 < found["mode_share_high"]
    assert mode_columns(flags[:, :1])["mode_pairs"] is None


@pytest.mark.parametrize("size", [2, 5])
def test_pairs_of_samples_are_one_half_on_average_for_fair_coins_however_many_samples(size):
    """Over all 2^K outcomes, which are equally likely."""
    outcomes = np.array(list(product((0.0, 1.0), repeat=size)))
    assert mode_columns(outcomes)["mode_pairs"] == pytest.approx(0.5)
    one_mode = outcomes[:, :1].repeat(size, axis=1)
    assert mode_columns(one_mode)["mode_pairs"] == 0 and mode_columns(one_mode)["mode_share"] == pytest.approx(0.5)


def test_the_rule_for_signs_is_a_version_of_tuning_alone():
    study = Study.load(
        {
            **{"study": "signs", "problems": {"squared": {"pde": "poisson-squared"}, "poisson": {"pde": "poisson"}}},
            **{"data": {"resolution": 8, "train": 8, "validation": 4, "test": 1}, "fractions": [1.0]},
            **{"observations": {"sparse": {"count": 4}}, "prior": {"training": {"steps": 1}}},
            "runs": {"ddis": {"operator": "solver", "weight": 1}},
        }
    )
    kinds = {case.problem: versions_of(study, "tune", **vars(case)).keys() for case in study.cases()}
    assert kinds["squared"] - kinds["poisson"] == {"nearer"}
    assert all("nearer" not in versions_of(study, "sample", **vars(case)) for case in study.cases())


@pytest.mark.parametrize("kind, error", [("nodes", 0.0), ("coefficient", 200.0)])
def test_a_weight_is_not_blamed_for_the_sign_unless_the_coefficient_is_observed(tmp_path, monkeypatch, kind, error):
    """A sampler that draws -a for every truth a."""

    class Opposite(Sampler):
        def draw(self, *_):
            pass

        def collect(self, observed, _):
            return SimpleNamespace(coefficient=-observed.coefficient[:, None])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "Sampler", Opposite)
    network = {"backbone": {"channels": [8, 8], "blocks": [1, 1]}, "training": {"steps": 1, "batch": 8}}
    study = Study.load(
        {
            **{"study": "signs", "device": "cpu", "problems": {"squared": {"pde": "poisson-squared"}}, "fractions": [1.0]},
            **{"data": {"resolution": 8, "train": 8, "validation": 4, "test": 1}, "prior": network},
            "observations": {"sparse": {"kind": kind, "count": 4, "noise": 0.1}},
            "runs": {"ddis": {"operator": "solver", "weight": 1}},
            "tuning": {"candidates": {"ddis": [1, 2]}},
        }
    )
    for split in ("train", "validation"):
        generate.run(study, "squared", split)
    train.run(study, "squared", "prior")
    [case] = study.cases()
    tune.run(study, **vars(case))
    assert pd.read_csv(tuning_path(study, **vars(case)))["l2_validation"].tolist() == pytest.approx([error] * 2, abs=1e-9)
