"""What the error of interpolation in R is good for: `python benchmarks/interpolation.py [results/quickstart/models/poisson]`.

24 truths of poisson, each seen at 60 points between the nodes, without noise and with 1 %; `ddis solve` with the exact posterior
and 8 samples, with that term and without. Prints, and writes to benchmarks/results/interpolation.json, coverage of the 90 %
intervals, mean relative l2 error of the mean in percent, range of the misfits, and how many are reported as not explained.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import ddis
from ddis.evaluation.metrics import relative_l2
from ddis.pde import make_problem
from ddis.stages import solve

sys.path.append(str(Path(__file__).parents[1] / "docs" / "solve"))
from example import SIZE, sine_series

FIELDS, POINTS, SAMPLES, SEED = 24, 60, 8, 99


def measure(model: str, noise: float) -> dict[str, float]:
    """The figures for one noise, in units of the solution's standard deviation."""
    problem, rng = make_problem("poisson", {}), np.random.default_rng(1)
    coverage, errors, misfits, reported = [], [], [], 0
    for field in range(FIELDS):
        truth = problem.sample_coefficients([field], SIZE, SEED)
        solution = problem.solve(truth)[0].numpy()
        x, y = rng.uniform(0.02, 0.98, (2, POINTS))
        sigma = noise * solution.std()
        value = sine_series(solution, x, y) + sigma * rng.standard_normal(POINTS)
        rows = np.stack([x, y, value, np.full(POINTS, sigma)], axis=1)
        found = ddis.solve(model, rows, percent=100, samples=SAMPLES, method="exact")
        width = stats.t.ppf(0.95, SAMPLES - 1) * found.std * np.sqrt(1 + 1 / SAMPLES)
        coverage.append(np.mean(np.abs(found.mean - truth[0].numpy()) <= width))
        errors.append(100 * float(relative_l2(found.mean, truth[0].numpy())))
        misfits.append(found.misfit.ratio)
        reported += not found.misfit.explained
    figures = {
        "coverage90": np.mean(coverage),
        "l2_mean": np.mean(errors),
        "misfit_low": min(misfits),
        "misfit_high": max(misfits),
    }
    return {**{name: round(float(value), 3) for name, value in figures.items()}, "reported": reported, "fields": FIELDS}


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "results/quickstart/models/poisson"
    estimate: Callable[..., torch.Tensor] = solve.interpolation_variance
    results = {}
    for name, term in (("with", estimate), ("without", lambda *given: 0 * estimate(*given))):
        solve.interpolation_variance = term  # type: ignore[assignment]
        for noise in (0.0, 0.01):
            results[f"{name}, noise {noise:g}"] = measure(model, noise)
            print(f"{name}, noise {noise:g}: {results[f'{name}, noise {noise:g}']}")
    path = Path(__file__).parent / "results" / "interpolation.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
