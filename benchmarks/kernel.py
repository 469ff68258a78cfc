"""What Gaussian likelihoods make of PosteriorBench's question: a kernel on the mean absolute error of 128 values.

    python benchmarks/kernel.py

Poisson with α ~ U[1.5, 3], τ ~ U[2, 4] for every field, 128 observations of 32 x 32 nodes, noise 2.5 % of std(u), which is its
1e-4. `exact` draws with independent errors of several variances; 128 of each of four fields against 256 weighted draws of the
kernel's posterior. Writes benchmarks/results/kernel.md. Two minutes on one core.
"""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch

from ddis.evaluation.distances import average, distances
from ddis.fields.noise import WhiteNoise
from ddis.files import write_text
from ddis.models.normalisation import Normalisation
from ddis.observe.likelihood import worth
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import mixture
from ddis.randomness import generator
from ddis.references.weighted import OVERSAMPLED, Weighted, weighted
from ddis.sampling.methods import load_method, run_settings

SIZE, VALUES, FIELDS, NOISE, SEED, DRAWS, SAMPLES = 32, 128, 4, 0.025, 3, 256, 128
KERNEL = worth("mean-absolute", VALUES)
VARIANCES = {"σ², the stated noise": 1.0, "(π m / 2) σ² / 4": KERNEL / 4, "(π m / 2) σ²": KERNEL, "(π m / 2) 4 σ²": 4 * KERNEL}
RESULT = Path(__file__).parent / "results" / "kernel.md"


def main() -> None:
    torch.set_num_threads(1)
    problem = make_problem("poisson", {"alpha": (1.5, 3.0), "tau": (2.0, 4.0)}, SIZE)
    scale = float(problem.solve(problem.sample_coefficients(range(100, 164), SIZE, SEED)).std())
    grid, sigma = problem.coefficient_space(SIZE).grid, NOISE * scale
    index = torch.stack([torch.from_numpy(draw_nodes(grid, VALUES, SEED, f)) for f in range(FIELDS)])
    truth = problem.sample_coefficients(range(FIELDS), SIZE, SEED)
    error = torch.stack([torch.from_numpy(generator(SEED, "noise", f).standard_normal(VALUES)) for f in range(FIELDS)])
    values = problem.solve(truth).flatten(1).gather(1, index) + sigma * error

    def draw(variance: float, stream: str, count: int) -> list[torch.Tensor]:
        sensors = Nodes(index, sigma * variance**0.5)
        posterior = Posterior(
            problem, mixture(problem, WhiteNoise()), Solver(problem, Normalisation(0.0, scale)), sensors, values
        )
        method = load_method("exact")(run_settings("exact", {"samples": count, "operator": "solver"}))
        prepared, _ = posterior.prepare(method)
        found = []
        for field in range(FIELDS):
            streams = [generator(SEED, stream, field, k) for k in range(count)]
            *_, state = method.sample(posterior.batch(method, slice(field, field + 1), streams), prepared)
            found.append(posterior.physical(state.x0))
        return found

    def reference(stream: str, count: int) -> list[Weighted]:
        noise = torch.full((VALUES,), sigma**2, dtype=torch.float64)
        drawn = draw(KERNEL, stream, OVERSAMPLED * count)
        predicted = [problem.solve(x).flatten(1)[:, index[f]] for f, x in enumerate(drawn)]
        return [weighted(x, p, y, noise, "mean-absolute") for x, p, y in zip(drawn, predicted, values, strict=True)]

    known, unit = reference("reference", DRAWS), float(truth.std())
    rows = {"the kernel itself: the floor": [w.draws for w in reference("floor", SAMPLES)]}
    rows |= {f"independent errors of variance {name}": draw(v, "samples", SAMPLES) for name, v in VARIANCES.items()}
    lines = ["| samples of | mean | std | MMD | SWD | spectrum |", "|---|---|---|---|---|---|"]
    for name, samples in rows.items():
        found = average([distances(x, w.draws, scale=unit) for x, w in zip(samples, known, strict=True)])
        lines.append("| " + " | ".join([name, *(f"{value:.3f}" for value in astuple(found))]) + " |")
    share = np.array([w.ess for w in known]) / (OVERSAMPLED * DRAWS)
    lines += ["", f"Share of effective draws in the kernel's reference: {', '.join(f'{s:.2f}' for s in share)}"]
    write_text(RESULT, "\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
