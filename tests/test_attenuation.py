"""Guidance by share of the pairs: the toy of finite sets against autograd and its limits, gradients against matrices."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import ddis
from ddis.config import Study
from ddis.errors import InputError
from ddis.evaluation import attenuation
from ddis.evaluation.text import grouped, numbers, read_table, where
from ddis.posterior import Posterior
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.sampling.guidance import guidance_gradient
from ddis.sampling.methods import load_method, run_settings
from ddis.stages import generate, guidance, pairs, train
from ddis.stages.layout import guidance_path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import guidance_attenuation as toy  # noqa: E402


def test_the_jacobian_of_a_finite_set_is_that_of_its_softmax_weighted_mean():
    rng = np.random.default_rng(0)
    a, u, noisy = rng.standard_normal((20, 3)), rng.standard_normal((20, 2)), rng.standard_normal(5)
    known, values = torch.from_numpy(np.hstack([a, u])), torch.from_numpy(u)

    def predicted(a_t: torch.Tensor) -> torch.Tensor:
        x_t = torch.cat([a_t, torch.from_numpy(noisy[3:])])
        return (-(known - x_t).square().sum(dim=1) / (2 * 0.7**2)).softmax(dim=0) @ values

    expected = torch.autograd.functional.jacobian(predicted, torch.from_numpy(noisy[:3])).numpy()
    found = toy.joint((a, u), (noisy[None, :3], noisy[None, 3:]), 0.7)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_many_pairs_give_the_gaussian_limits():
    """A draw of 100,000 pairs of one coefficient, of which some 30,000 share in a prediction: 1/30,000^½ = 0.6 %."""
    rng, operator, s = np.random.default_rng(1), np.array([[2.0]]), 0.5
    a = rng.standard_normal((100_000, 1))
    noisy = np.array([[0.3], [-0.8]]), np.array([[0.6], [-1.5]])
    ends = toy.limits(np.eye(1), operator, s)
    np.testing.assert_allclose(toy.joint((a, a @ operator.T), noisy, s), np.stack([ends[0]] * 2), rtol=0.03)
    np.testing.assert_allclose(toy.decoupled(a, operator, noisy[0], s), np.stack([ends[1]] * 2), rtol=0.03)


def test_guidance_of_few_pairs_is_below_the_bound_of_the_gap_and_that_of_many_coefficients_is_not():
    rng, operator, s = np.random.default_rng(2), np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0], 0.15
    many = rng.standard_normal((20_000, 3))
    few, state = many[:10], rng.standard_normal((50, 3))
    noisy = state + s * rng.standard_normal((50, 3)), state @ operator.T + s * rng.standard_normal((50, 3))
    norms = np.linalg.norm(toy.joint((few, few @ operator.T), noisy, s), axis=(1, 2))
    distances = (np.square(np.hstack(noisy)[:, None] - np.hstack([few, few @ operator.T])).sum(axis=2)) / (2 * s**2)
    nearest = np.sort(distances, axis=1)
    widest = max(np.linalg.norm(x - y) for x in few for y in few)
    assert (norms <= 9 * np.exp(nearest[:, 0] - nearest[:, 1]) * widest**2 / s**2 + 1e-12).all()
    assert np.median(norms) < 1e-3 < 1 < np.median(np.linalg.norm(toy.decoupled(many, operator, noisy[0], s), axis=(1, 2)))


@pytest.fixture(scope="module")
def batch():
    """Two fields of 8 x 8 nodes with the optimal denoiser and the solver, in double precision."""
    problem = ddis.problem("poisson", resolution=8)
    u = problem.solve(problem.sample_coefficients(range(2), 8, 0)).numpy()
    sensors = ddis.observe.nodes([9, 20, 37])
    posterior = Posterior(problem, gaussian(problem), None, sensors, u.reshape(2, -1)[:, [9, 20, 37]])
    method = load_method("exact")(run_settings("exact", {}))
    return posterior.batch(method, slice(None), [generator(0, "test", field) for field in range(2)])


def matrix(function, size: int = 64) -> torch.Tensor:
    """Of a linear function of fields of 8 x 8 nodes."""
    return function(torch.eye(size, dtype=torch.float64).reshape(size, 1, 8, 8)).reshape(size, -1).T


@pytest.mark.parametrize("through", ["denoiser", "operator"])
def test_decoupled_guidance_is_the_product_of_the_jacobians(batch, through):
    x_t = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 1, 8, 8)))
    denoiser = matrix(lambda x: batch.prior(x, torch.full((len(x),), 0.4)))
    solver = matrix(lambda x: batch.operator(x[:, 0]))
    for field, found in enumerate(guidance_gradient(batch, x_t, 0.4, through)):
        rows = solver[batch.observation.functionals.index.flatten()[batch.observation.index[field]]]
        misfit = batch.observation.misfit((rows @ denoiser @ x_t[field].flatten()).expand(2, -1))[field]
        expected = rows.T @ misfit / (misfit.norm() * len(misfit) ** 0.5)
        expected = denoiser.T @ expected if through == "denoiser" else expected
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_joint_guidance_is_the_slope_of_the_misfit(batch):
    mix = torch.from_numpy(np.random.default_rng(1).standard_normal((128, 128))) / 128**0.5
    joint = replace(batch, prior=lambda x, sigma: torch.tanh(x.flatten(1) @ mix).reshape(x.shape))
    x_t, step = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 2, 2, 8, 8)))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return joint.observation.misfit(joint.predict_joint(joint.prior(x, None))).square().mean(dim=1).sqrt()

    slope = (loss(x_t + 1e-6 * step) - loss(x_t - 1e-6 * step)) / 2e-6
    found = (guidance_gradient(joint, x_t, 0.4, "denoiser") * step).flatten(1).sum(dim=1)
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-9)


def made_up(joint: float, decoupled: float) -> list[dict[str, Any]]:
    """Norms that fall to these shares of 2 with few pairs, and vary by a percent from field to field."""
    rows = []
    for model, through, kept in (
        ("joint", "denoiser", joint),
        ("decoupled", "denoiser", decoupled),
        ("decoupled", "operator", decoupled),
    ):
        for percent, sigma, field in ((p, s, f) for p in (1.0, 100.0) for s in (1.0, 0.1) for f in range(24)):
            norm = 2 * (kept if percent == 1 else 1) * (1 + 0.01 * np.sin(field + percent))
            shared = {"problem": "poisson", "observation": "sparse", "model": model, "through": through, "percent": percent}
            rows.append(shared | {"pairs": 10 * percent, "sigma": sigma, "field": field, "norm": norm, "cosine": 0.5})
    return rows


@pytest.mark.parametrize(
    ("joint", "decoupled", "verdicts"), [(0.2, 1.0, ["yes"] * 3), (1.0, 0.5, ["no"] * 3), (1.1, 1.1, ["no", "yes", "yes"])]
)
def test_claims_say_what_few_pairs_leave_of_the_guidance(joint, decoupled, verdicts):
    rows = attenuation.claim_rows(made_up(joint, decoupled))
    assert [row["verdict"] for row in rows] == verdicts
    assert [row["ours"] for row in rows] == pytest.approx([joint, decoupled, decoupled], rel=1e-2)


def test_the_page_has_a_line_for_each_share_and_a_column_for_each_level():
    page = attenuation.page(made_up(0.2, 1.0))
    assert "| guidance | share of the pairs | pairs | s = 1 | s = 0.1 |" in page
    line = re.search(r"^\| joint \| 1 % \| 10 \| (.*) \|$", page, re.MULTILINE)[1]
    assert line.split(" | ") == ["0.4 ± 0.0006 (0.50)"] * 2


@pytest.mark.filterwarnings("error")
def test_one_field_has_no_standard_error_and_decides_nothing():
    table = where(made_up(0.2, 1.0), field=0)
    page = attenuation.page(table)
    assert "| 0.403 (0.50) | 0.403 (0.50) |" in page and "nan" not in page
    assert [row["verdict"] for row in attenuation.claim_rows(table)] == ["inconclusive"] * 3
    attenuation.chart(table)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """The networks of the tiny study, and what the stage makes of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guidance"))
        patch.setenv("DDIS_TRACKING", "off")
        study = Study.load(yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text()))
        for split in ("train", "validation", "test"):
            generate.run(study, "poisson", split)
        for percent in ("10", "100"):
            pairs.run(study, "poisson", percent)
        for model in ("prior", "joint-10", "joint-100", "operator-10", "operator-100"):
            train.run(study, "poisson", model)
        guidance.run(study, "poisson")
        study._folder = study.folder.absolute()
    return study


def test_the_stage_measures_every_model_at_every_level_and_field(study):
    table = read_table(guidance_path(study, "poisson"), attenuation.TYPES)
    counts = {key: len(rows) for key, rows in grouped(table, "model", "through").items()}
    each = len(guidance.LEVELS) * study.data.test
    shares = {("joint", "denoiser"): 2, ("decoupled", "denoiser"): 2, ("decoupled", "operator"): 2}
    exact = {("exact", "denoiser"): 1, ("exact", "operator"): 1}
    assert counts == {key: each * number for key, number in (shares | exact).items()}
    assert (numbers(where(table, model="exact"), "cosine") > 1 - 1e-6).all() and (numbers(table, "norm") > 0).all()
    folder = guidance_path(study, "poisson").parent
    assert {path.name for path in folder.iterdir()} == {"gradients.csv", "README.md", "attenuation.png"}


def test_problems_without_both_kinds_of_model_at_two_shares_are_refused(study):
    other = Study.load({**study.resolved(), "runs": {"ddis": {}}, "tuning": {}})
    assert study.guided() == {"poisson": ["10", "100"]} and other.guided() == {}
    with pytest.raises(InputError, match="no guidance to compare"):
        guidance.run(other, "poisson")
