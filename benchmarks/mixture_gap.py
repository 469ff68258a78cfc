"""How far samplers are from a posterior that is not Gaussian: fields that draw the smoothness of their own random field.

    python benchmarks/mixture_gap.py

Poisson with α ~ U[1.5, 3], τ ~ U[2, 4] for every field on 32 x 32 nodes, 128 samples of each of eight fields, with the exact
denoiser and the exact solver: what is left is that of the sampler. `exact` is the reference, and a second set of its samples the
floor; a sampler that knows the components stands beside them. First 60 observations with 2 % noise; then 128 with 2.5 %, as
PosteriorBench has them; and those with the correlated noise that studies train their priors with. Writes
benchmarks/results/mixture_gap.md. About ten minutes on one core.
"""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddis.evaluation.distances import Distances, average, distances
from ddis.evaluation.metrics import relative_l2
from ddis.files import write_text
from ddis.models.denoiser import SIGMA_DATA
from ddis.models.normalisation import Normalisation
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import mixture
from ddis.randomness import generator
from ddis.sampling.base import Batch
from ddis.sampling.daps import anneal
from ddis.sampling.gauss_newton import SharedJacobian, chain_weights, draw_observation_noise
from ddis.sampling.methods import load_method, run_settings
from ddis.sampling.schedules import karras_schedule
from ddis.settings import NoiseSettings
from ddis.trained import noise_of

SEED, CHAINS, NOISE = 7, 128, 0.02
RANGES = {"alpha": (1.5, 3.0), "tau": (2.0, 4.0)}
RESULT = Path(__file__).parent / "results" / "mixture_gap.md"
KNOWN = "known components"  # no method: see KnownComponents
FLOOR: dict[str, tuple[str, dict[str, Any]]] = {"`exact`, a second set: the floor": ("exact", {})}
SPECTRUM: dict[str, tuple[str, dict[str, Any]]] = {
    "`tikhonov`: one Gaussian with the average spectrum": ("tikhonov", {}),
    "`ddis-gn`, `covariance: spectrum`, 10 levels": ("ddis-gn", {"covariance": "spectrum"}),
    "`ddis-gn`, `covariance: spectrum`, 30 levels": ("ddis-gn", {"covariance": "spectrum", "steps": 30}),
}
DENOISER: dict[str, tuple[str, dict[str, Any]]] = {
    "`ddis-gn`, `covariance: denoiser`, 2 products, 10 levels": ("ddis-gn", {"covariance": "denoiser"}),
    "the same from `sigma_max: 1` on": ("ddis-gn", {"covariance": "denoiser", "sigma_max": 1.0}),
    "`ddis-gn`, `covariance: denoiser`, 8 products, 10 levels": ("ddis-gn", {"covariance": "denoiser", "probes": 8}),
    "`ddis-gn`, `covariance: denoiser`, 2 products, 30 levels": ("ddis-gn", {"covariance": "denoiser", "steps": 30}),
    "`ddis-gn`, `covariance: denoiser`, 8 products, 30 levels": ("ddis-gn", {"covariance": "denoiser", "probes": 8, "steps": 30}),
    "`ddis-gn`, `covariance: denoiser`, 2 products, 10 levels, 3 moves": ("ddis-gn", {"covariance": "denoiser", "moves": 3}),
}
EVIDENCE: dict[str, tuple[str, dict[str, Any]]] = {
    "component drawn with the evidence of the values, 10 levels": (KNOWN, {"steps": 10})
}
WHITE, KERNEL = NoiseSettings(kernel="white"), NoiseSettings(kernel="exponential", length=0.02, diagonal=True)
SETTINGS = {
    "60 observations, 2 % noise": ((60, 0.02, WHITE), FLOOR | SPECTRUM | DENOISER | EVIDENCE),
    "128 observations, 2.5 % noise": ((128, 0.025, WHITE), FLOOR | DENOISER | EVIDENCE),
    "128 observations, 2.5 % noise, diffusion with the noise of the studies": ((128, 0.025, KERNEL), FLOOR | DENOISER | EVIDENCE),
}


def make_posterior(size: int, observed: int, fields: int, noise: float = NOISE, diffusion: NoiseSettings = WHITE) -> Posterior:
    """Fields, observations and their prior; all from SEED. noise: of the values, in std(u); diffusion: that of the prior."""
    problem = make_problem("poisson", RANGES, size)
    scale = Normalisation(0.0, float(problem.solve(problem.sample_coefficients(range(100, 164), size, SEED)).std()))
    grid = problem.coefficient_space(size).grid
    index = torch.stack([torch.from_numpy(draw_nodes(grid, observed, SEED, f)) for f in range(fields)])
    u = problem.solve(problem.sample_coefficients(range(fields), size, SEED)).flatten(1).gather(1, index)
    error = torch.stack([torch.from_numpy(generator(SEED, "noise", f).standard_normal(observed)) for f in range(fields)])
    sensors = Nodes(index, noise * scale.std)
    prior = mixture(problem, noise_of(diffusion, grid.basis, white=False))
    return Posterior(problem, prior, Solver(problem, scale), sensors, u + noise * scale.std * error)


class KnownComponents:
    """A draw of x0 given x_t and the values y of a linear operator that is exact: x_t = x0 + σ n, x0 of a mixture of Gaussians.

    The component c comes first, with p(c | x_t, y) ∝ p(c | x_t) N(y; J m_c, J Σ_c Jᵀ + R), then x0 from its Gaussian given both.
    A denoiser tells p(x0 | x_t) by its mean and covariance alone: what y says about the component is lost.
    """

    def __init__(self, batch: Batch):
        assert batch.mixture is not None
        self.batch, self.rows = batch, SharedJacobian(batch)(batch.observation.index)
        self.spectra, self.weights = batch.mixture.spectra.flatten(1), batch.mixture.weights
        self.covariance, self.values = batch.observation.covariance.double(), batch.observation.values.double()

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        batch, noise = self.batch, sigma**2 * self.batch.noise.spectrum(self.batch.basis).flatten()
        x, total = batch.basis.forward(x_t.double()).flatten(1), self.spectra + noise
        share = self.spectra / total
        chance = self.weights.log() - 0.5 * (x.square() @ total.reciprocal().T + total.log().sum(dim=1))
        evidence = [self.evidence(s * x, s * noise) for s in share]
        drawn = (chance + torch.stack(evidence, dim=1)).softmax(dim=1).cumsum(dim=1)
        uniform = torch.tensor([[g.random()] for g in batch.generators], dtype=torch.float64)
        c = (drawn < uniform).sum(dim=1).clamp_max(len(share) - 1)
        mean, variance = share[c] * x, share[c] * noise
        free = mean + variance.sqrt() * batch.draw_white(*batch.shape).flatten(1)
        residual = self.values[:, None] + draw_observation_noise(batch) - self.predicted(free)
        change = chain_weights(self.rows, variance, self.covariance, residual)[1]
        return batch.basis.inverse((free + change.reshape(free.shape)).reshape(x_t.shape)).to(x_t)

    def predicted(self, x: Tensor) -> Tensor:
        """[n, K, m] of fields [n K, modes] in the basis."""
        return x.reshape(len(self.rows), -1, x.shape[1]) @ self.rows.transpose(1, 2)

    def evidence(self, mean: Tensor, variance: Tensor) -> Tensor:
        """log p(y) [n K] if x0 were Gaussian with this mean [n K, modes] and variance [modes]; without its constant."""
        root = torch.linalg.cholesky(self.rows * variance @ self.rows.transpose(1, 2) + self.covariance)
        residual = (self.values[:, None] - self.predicted(mean)).transpose(1, 2)
        white = torch.linalg.solve_triangular(root, residual, upper=False)
        return (-0.5 * white.square().sum(dim=1) - root.diagonal(dim1=1, dim2=2).log().sum(dim=1)[:, None]).flatten()


def samples(posterior: Posterior, method: str, stream: str = "chain", chains: int = CHAINS, **settings: Any) -> np.ndarray:
    """[n, chains, *shape], normalised; numbers from another stream are independent."""
    name = "ddis-gn" if method == KNOWN else method
    made = load_method(name)(run_settings(name, {"samples": chains, **settings}))
    fields = len(posterior.values)
    generators = [generator(SEED, stream, f, k) for f in range(fields) for k in range(chains)]
    batch = posterior.batch(made, slice(None), generators)
    if method == KNOWN:
        s = made.settings
        states = anneal(batch, KnownComponents(batch), karras_schedule(s.sigma_max, s.sigma_min, s.steps), ode_steps=1)
    else:
        states = made.sample(batch, made.prepare(batch))
    *_, last = states
    return last.x0.reshape(fields, chains, *last.x0.shape[1:]).numpy()


def compare(drawn: np.ndarray, reference: np.ndarray) -> Distances:
    """Mean over the fields."""
    return average([distances(x, y, scale=SIGMA_DATA) for x, y in zip(drawn, reference, strict=True)])


def main() -> None:
    torch.set_num_threads(1)
    size, fields, parts = 32, 8, []
    for title, ((observed, noise, diffusion), rows) in SETTINGS.items():
        posterior = make_posterior(size, observed, fields, noise, diffusion)
        truth = posterior.problem.sample_coefficients(range(fields), size, SEED) * (SIGMA_DATA / posterior.coefficient.std)
        reference = samples(posterior, "exact")
        lines = ["| sampler | mean | std | MMD | SWD | spectrum | l2 of a sample, % |", "|---" * 7 + "|"]
        for name, (method, settings) in rows.items():
            drawn = samples(posterior, method, "other", **settings)
            error = 100 * float(relative_l2(drawn, truth.numpy()[:, None]).mean())
            cells = [*(f"{value:.3f}" for value in astuple(compare(drawn, reference))), f"{error:.1f}"]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
        parts += [f"## {title}", "\n".join(lines)]
    write_text(RESULT, "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
