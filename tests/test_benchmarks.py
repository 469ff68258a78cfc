"""What benchmarks compute besides calling the package: pages and plots from made-up measurements, a reference of their own."""

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from posterior_gap import Setting, draw, make_setting
from test_gauss_newton import SIZE, make_task

from ddis.config import Study
from ddis.fields.noise import WhiteNoise
from ddis.grid import square
from ddis.models.denoiser import GaussianDenoiser
from ddis.operators.error import OperatorError, operator_error_model
from ddis.sampling.covariance import conditional_spectrum
from ddis.sampling.matrix_free import LeadingModes, MatrixFreeUpdate

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import budget  # noqa: E402
import coarse_training  # noqa: E402
import forcing_modes  # noqa: E402
import gauss_newton  # noqa: E402
import operator_error  # noqa: E402
import operators  # noqa: E402


def row(run: str, error: float | None, prior: float, operator: float, **settings) -> dict:
    spread = {"l2_sample_se": None, "spectral": None} if error is None else {"l2_sample_se": 1.0, "spectral": 0.1}
    costs = {"prior_evaluations": prior, "operator_evaluations": operator, "seconds_per_sample": 0.5}
    return {"run": run, "samples": 1, "l2_sample": error, **settings, **spread, **costs}


@pytest.fixture
def result() -> dict:
    rows = [
        row("ddis", 40.0, 10, 400, steps=10),
        row("ddis", 25.0, 50, 2000, steps=50),
        row("fundps", 60.0, 49, 0, steps=25),
        row("fundps", None, 99, 0, steps=50),
        row("exact", 18.0, 0, 16),
    ]
    setting = {"study": "made-up", "problem": "poisson", "resolution": 64, "observations": 125, "fields": 8}
    return setting | {"threads": 1, "device": "none", "rows": rows}


def test_every_measurement_is_a_row_of_the_page(result):
    page = budget.page(result)
    assert "| `ddis` | 50 | 1 | 25.0 ± 1.0 | 0.100 | 50 | 2000 | 0.5 |" in page
    assert "| `fundps` | 50 | 1 | not finite |  | 99 | 0 | 0.5 |" in page
    assert "64 x 64 nodes, 125 observations, 8 test fields" in page


def test_lines_end_where_a_cost_or_an_error_does_not_exist(result):
    prior, operator, seconds = budget.plot(result).axes
    lines = [{line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in (prior, operator, seconds)]
    assert lines[0]["ddis"] == [[10, 40], [50, 25]] and lines[0]["fundps"] == [[49, 60]]
    assert lines[1]["ddis"] == [[400, 40], [2000, 25]] and "fundps" not in lines[1]
    assert all(line["exact samples: the limit"][0][1] == 18 for line in lines)


def test_budgets_are_those_of_runs_that_the_study_has():
    study = Study.load(ROOT / "config" / "reduced-64.yaml")
    tried = list(budget.settings(study))
    assert {run for run, _ in tried} == {*budget.BUDGETS, *budget.CLOSED_FORM} <= set(study.runs)
    for run, changes in tried:
        assert changes.get("steps", 0) <= max(100, getattr(study.runs[run], "steps", 0))


def test_rows_of_every_chain_give_what_products_give():
    """The reference of benchmarks/gauss_newton.py against conjugate gradients to 1e-10, a point for every chain."""
    task = make_task("navier-stokes")
    torch.manual_seed(0)
    point, x_tilde = 0.3 * torch.randn(2, 4, SIZE, SIZE, dtype=torch.float64)
    target = task.observation.values[:, None] + 0.01 * torch.randn(2, 2, task.observation.index.shape[1], dtype=torch.float64)
    variance = conditional_spectrum(task.spectrum, task.noise.spectrum(task.basis), 0.5)
    expected = MatrixFreeUpdate(task, LeadingModes(task), 1e-10)(point, x_tilde, target, variance)
    assert torch.allclose(gauss_newton.OwnJacobian(task)(point, x_tilde, target, variance), expected, rtol=1e-6, atol=1e-9)


def expected_error(setting: Setting, mean: torch.Tensor) -> torch.Tensor:
    """Root mean square errors [n] of estimates [n, P] for truths from the posterior."""
    spread = setting.covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
    return (spread + (mean - setting.mean).square().sum(dim=1)).sqrt()


def test_a_worse_operator_costs_ddis_gn_accuracy_but_less_with_its_error_in_r():
    """The solver mixed with that of the transposed field, R from 100 pairs; found: 0.29, 0.32, 0.57 and 1.09 of the prior's."""
    torch.set_num_threads(1)
    setting = make_setting("poisson", fields=8)
    task = setting.task
    rng = torch.Generator().manual_seed(0)
    draws = torch.randn(100, 16, 16, generator=rng, dtype=torch.float64)
    a = task.basis.inverse(task.spectrum.sqrt() * draws)
    u = task.operator(a)

    def error(operator: Callable, model: OperatorError | None = None) -> float:
        """Of the mean of 64 samples, in units of that of the prior's mean; the samples' own noise is below 1 %."""
        observation = replace(task.observation, error=model)
        samples = draw(replace(setting, task=replace(task, operator=operator, observation=observation)), "ddis-gn", 64)
        return float((expected_error(setting, samples.mean(dim=1)) / expected_error(setting, 0 * setting.mean)).mean())

    with_error, noise_only = [], []
    for share in (0.01, 0.1, 0.3, 1.0):

        def bad(x: torch.Tensor, share: float = share) -> torch.Tensor:
            return (1 - share) * task.operator(x) + share * task.operator(x).mT

        gain, spectrum = operator_error_model(bad(a), u, task.basis)

        def scaled(x: torch.Tensor, bad: Callable = bad, gain: torch.Tensor = gain) -> torch.Tensor:
            return task.basis.inverse(gain * task.basis.forward(bad(x)))

        with_error.append(error(scaled, OperatorError(task.basis, gain=gain, spectrum=spectrum)))
        noise_only.append(error(bad))
    assert all(worse > 1.05 * better for better, worse in pairwise(with_error)), with_error
    assert with_error[0] < 1.05 * error(task.operator) and with_error[-1] < 1.2, with_error
    assert all(a < 1.01 * b for a, b in zip(with_error, noise_only, strict=True)), noise_only
    assert all(a < 0.9 * b for a, b in zip(with_error[2:], noise_only[2:], strict=True)), noise_only


def test_what_an_operators_error_must_not_do():
    """Errors fall by 2 ± 1 from the second operator to the third; the order of the rows and other runs do not count."""
    errors = [[10.0, 13.0], [30.0, 32.0], [27.0, 31.0]]
    rows = [
        {"key": {"run": "ddis-gn"}, "error": size, "l2_mean": values, "coverage90": 1 - size, "n_failed": 0}
        for size, values in zip((0.01, 0.1, 0.3), errors, strict=True)
    ]
    other = {"key": {"run": "ddis"}, "error": 0.1, "l2_mean": [900.0, 900.0], "coverage90": 0.0, "n_failed": 2}
    found = operator_error.criteria([rows[2], other, rows[0], rows[1]])
    assert found == {
        "largest_l2_mean": 31.0,
        "largest_fall_in_standard_errors": pytest.approx(2.0),
        "smallest_coverage90": 0.7,
        "failed_fields": 0,
    }


def test_an_architecture_is_a_row_with_its_error_and_times(monkeypatch):
    monkeypatch.setattr(operators, "SECONDS", 2.0)
    monkeypatch.setattr(operators, "COUNTS", {"train": 16, "validation": 4, "test": 4})
    pairs = operators.Pairs.of("poisson")
    assert torch.allclose(pairs.normalised("train")[1].std(correction=0), torch.tensor(0.5))
    problem, name, parameters, *numbers = [cell.strip() for cell in operators.row(pairs, "fno").strip("|").split("|")]
    assert (problem, name, parameters) == ("`poisson`", "`fno`", "234,001") and all(float(number) > 0 for number in numbers)


def test_ways_to_restrict_a_field_on_a_line():
    line = torch.arange(8.0)[:, None].expand(8, 8)
    found = {name: way(line)[:, 0].tolist() for name, way in coarse_training.WAYS.items()}
    assert found["nodes"] == [0, 2, 4, 6] and found["means"] == [0.5, 2.5, 4.5, 6.5]
    assert found["ends"] == pytest.approx([0, 7 / 3, 14 / 3, 7])


def test_modes_of_means_of_two_nodes_have_the_variances_in_closed_form():
    """Coarse mode k > 0 is cos(π k / 2 S) / √2 times mode k of S nodes, less sin(π k / 2 S) / √2 times mode S - k."""
    size = 16
    spectrum = torch.rand(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = torch.arange(size // 2)
    squares = torch.zeros(size // 2, size, dtype=torch.float64)
    squares[k, k] = (torch.pi * k / (2 * size)).cos().double() ** 2 / 2
    squares[k[1:], size - k[1:]] = (torch.pi * k[1:] / (2 * size)).sin().double() ** 2 / 2
    found = coarse_training.spectrum_of_means(spectrum, square(size).basis, square(size // 2).basis)
    torch.testing.assert_close(found, squares @ spectrum @ squares.T, rtol=1e-6, atol=0)


def test_the_optimal_denoiser_has_no_excess_and_its_own_error_in_every_band():
    """White fields of variance 1/4 in white noise of 1/4: the optimal error is half the power; 960 values in the first band."""
    basis, spectrum, noise = square(32).basis, torch.full((32, 32), 0.25, dtype=torch.float64), WhiteNoise()
    x = 0.5 * torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    optimal = GaussianDenoiser(basis, spectrum, noise.spectrum(basis))
    excess, bands = coarse_training.judged(optimal, x, noise, basis, spectrum)
    assert max(map(abs, excess)) < 1e-9
    assert len(bands) == len(coarse_training.BANDS) - 1
    for band in bands:
        own, best = (float(text.strip("()")) for text in band.split())
        assert own == best == pytest.approx(0.5, abs=0.05)


def test_the_modes_of_the_forcing_are_those_of_x_plus_y():
    x, y = 2 * np.pi * np.arange(16)[:, None] / 16, 2 * np.pi * np.arange(16) / 16
    forcing = 0.3 * np.sin(x + y) - 0.7 * np.cos(x + y)
    other = np.cos(x - y) + np.sin(2 * (x + y)) + np.cos(x) + 1
    assert np.allclose(forcing_modes.forced((forcing + other)[None]), forcing)
