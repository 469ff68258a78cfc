"""How far samplers are from a posterior that is not Gaussian: fields that draw the smoothness of their own random field.

    python benchmarks/mixture_gap.py

Poisson with α ~ U[1.5, 3], τ ~ U[2, 4] for every field, 60 observations of 32 x 32 nodes with 2 % noise, 128 samples of each of
eight fields, with the exact denoiser and the exact solver: what is left is that of the sampler. `exact` is the reference, and a
second set of its samples the floor. Writes benchmarks/results/mixture_gap.md. Two minutes on one core.
"""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddis.evaluation.distances import Distances, average, distances
from ddis.evaluation.metrics import relative_l2
from ddis.fields.noise import WhiteNoise
from ddis.files import write_text
from ddis.models.denoiser import SIGMA_DATA
from ddis.models.normalisation import Normalisation
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import mixture
from ddis.randomness import generator
from ddis.sampling.methods import load_method, run_settings

SEED, CHAINS, NOISE = 7, 128, 0.02
RANGES = {"alpha": (1.5, 3.0), "tau": (2.0, 4.0)}
RESULT = Path(__file__).parent / "results" / "mixture_gap.md"
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "`exact`, a second set: the floor": ("exact", {}),
    "`tikhonov`: one Gaussian with the average spectrum": ("tikhonov", {}),
    "`ddis-gn`, `covariance: spectrum`, 10 levels": ("ddis-gn", {"covariance": "spectrum"}),
    "`ddis-gn`, `covariance: spectrum`, 30 levels": ("ddis-gn", {"covariance": "spectrum", "steps": 30}),
    "`ddis-gn`, `covariance: denoiser`, 2 products, 10 levels": ("ddis-gn", {"covariance": "denoiser"}),
    "`ddis-gn`, `covariance: denoiser`, 8 products, 10 levels": ("ddis-gn", {"covariance": "denoiser", "probes": 8}),
    "`ddis-gn`, `covariance: denoiser`, 2 products, 30 levels": ("ddis-gn", {"covariance": "denoiser", "steps": 30}),
    "`ddis-gn`, `covariance: denoiser`, 8 products, 30 levels": ("ddis-gn", {"covariance": "denoiser", "probes": 8, "steps": 30}),
}


def make_posterior(size: int, observed: int, fields: int) -> Posterior:
    """Fields, observations and their prior; all from SEED."""
    problem = make_problem("poisson", RANGES, size)
    scale = Normalisation(0.0, float(problem.solve(problem.sample_coefficients(range(100, 164), size, SEED)).std()))
    grid = problem.coefficient_space(size).grid
    index = torch.stack([torch.from_numpy(draw_nodes(grid, observed, SEED, f)) for f in range(fields)])
    u = problem.solve(problem.sample_coefficients(range(fields), size, SEED)).flatten(1).gather(1, index)
    error = torch.stack([torch.from_numpy(generator(SEED, "noise", f).standard_normal(observed)) for f in range(fields)])
    sensors = Nodes(index, NOISE * scale.std)
    return Posterior(problem, mixture(problem, WhiteNoise()), Solver(problem, scale), sensors, u + NOISE * scale.std * error)


def samples(posterior: Posterior, method: str, stream: str = "chain", chains: int = CHAINS, **settings: Any) -> np.ndarray:
    """[n, chains, *shape], normalised; numbers from another stream are independent."""
    made = load_method(method)(run_settings(method, {"samples": chains, **settings}))
    fields = len(posterior.values)
    generators = [generator(SEED, stream, f, k) for f in range(fields) for k in range(chains)]
    batch = posterior.batch(made, slice(None), generators)
    *_, last = made.sample(batch, made.prepare(batch))
    return last.x0.reshape(fields, chains, *last.x0.shape[1:]).numpy()


def compare(drawn: np.ndarray, reference: np.ndarray) -> Distances:
    """Mean over the fields."""
    return average([distances(x, y, scale=SIGMA_DATA) for x, y in zip(drawn, reference, strict=True)])


def main() -> None:
    torch.set_num_threads(1)
    size, fields = 32, 8
    posterior = make_posterior(size, 60, fields)
    truth = posterior.problem.sample_coefficients(range(fields), size, SEED) * (SIGMA_DATA / posterior.coefficient.std)
    reference = samples(posterior, "exact")
    lines = ["| sampler | mean | std | MMD | SWD | spectrum | l2 of a sample, % |", "|---" * 7 + "|"]
    for name, (method, settings) in ROWS.items():
        drawn = samples(posterior, method, "other", **settings)
        error = 100 * float(relative_l2(drawn, truth.numpy()[:, None]).mean())
        cells = [*(f"{value:.3f}" for value in astuple(compare(drawn, reference))), f"{error:.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    write_text(RESULT, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
