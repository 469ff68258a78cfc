"""What benchmarks compute besides calling the package: pages and plots from made-up measurements, a reference of their own."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_gauss_newton import SIZE, make_task

from ddis.config import Study
from ddis.sampling.gauss_newton import LeadingModes, MatrixFreeUpdate, conditional_spectrum

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import budget  # noqa: E402
import gauss_newton  # noqa: E402
import operator_error  # noqa: E402


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


def test_what_was_measured_of_bad_operators_holds():
    """The committed figures of ddis-gn with R: errors grow within two standard errors, stay below 1.05 times the prior mean's."""
    result = json.loads(operator_error.RESULT.read_text(encoding="utf-8"))
    found = operator_error.criteria(result["rows"])
    assert found == result["criteria"] and found["failed_fields"] == 0
    assert (
        found["largest_l2_mean"] <= 105 and found["largest_fall_in_standard_errors"] <= 2 and found["smallest_coverage90"] >= 0.8
    )
    errors = {row["operator"]: row["error"] for row in result["rows"]}
    assert min(errors.values()) < 0.011 and max(errors.values()) > 0.95
    assert all(
        {row["key"]["run"] for row in result["rows"] if row["operator"] == name} == set(operator_error.RUNS) for name in errors
    )


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
