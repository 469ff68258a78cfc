"""What each sampler misses of the exact posterior, with exact denoisers and the exact solver: no network takes part.

    python benchmarks/posterior_gap.py [--problem poisson] [--method ddis]

Poisson and helmholtz on 16 x 16 nodes, 20 observations with noise of 1 % of std(u), settings as published except for the weight.
Coefficient a and solution u = G a are jointly Gaussian: the optimal joint denoiser is a linear map, and the posterior is known.
The weight is the one of a grid with the smallest expected error of a sample, as `ddis tune` would choose it. From many chains of
four fields, with S the covariance of the samples, Σ that of the posterior and m its mean:

    bias          ‖E x - m‖ / ‖m‖, without what the finite number of chains adds
    spread        (tr S / tr Σ)^½; and in the directions v of the whitened prior that the data informs (posterior variance below
                  half of the prior's) or does not, the root of the mean of vᵀSv / vᵀΣv
    coverage90    share of the posterior's mass at a node that the samples' own 90 % interval (Student's t) holds, over all nodes
    sample error  root mean square error of a sample over that of an exact one, for truths from the posterior
    mean error    the same of the mean of infinitely many samples, over that of the posterior's mean

Prints a Markdown table and writes benchmarks/results/posterior_gap.{json,md}; a run of one problem or method updates its rows.
"""

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ddis.fields.bases import Basis, basis
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise, WhiteNoise
from ddis.grid import square
from ddis.models.denoiser import SIGMA_DATA, per_field
from ddis.models.normalisation import Normalisation
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.sampling.base import Batch
from ddis.sampling.methods import load_method, run_settings
from ddis.text import pipe_table

SIZE, OBSERVED, NOISE, SEED = 16, 20, 0.01, 7
FIELDS, TUNING_CHAINS, CHAINS = 4, 8, 64
DIVERGED = 10.0  # sample errors above this are left out of the curves
# As published, but for the weights: DPS through the operator takes FunDPS's settings.
PUBLISHED = {
    ("poisson", "fundps"): {"loss": "mse", "sigma_max": 10.0, "sigma_min": 0.01},
    ("poisson", "ddis-dps"): {"loss": "mse", "sigma_max": 10.0, "sigma_min": 0.01},
    ("helmholtz", "fundps"): {"loss": "rms", "sigma_max": 80.0, "sigma_min": 0.002, "residual_weight": 1.0},
    ("helmholtz", "ddis-dps"): {"loss": "rms", "sigma_max": 80.0, "sigma_min": 0.002},
}
WEIGHTS = {
    "ddis": tuple(0.0125 * 2**k for k in range(8)),
    "ddis-dps": tuple(4.0 * 2**k for k in range(8)),
    "fundps": tuple(8.0 * 2**k for k in range(8)),
    "diffusionpde": tuple(16.0 * 4**k for k in range(7)),
    "joint-daps": tuple(0.001 * 2**k for k in range(10)),
}
PROBLEMS = ("poisson", "helmholtz")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # method and settings of other rows
    "eci-5": ("eci", {"mix": 5}),
    "ofm": ("ofm", {"tau": 0.0}),
    "ofm-prior": ("ofm", {"tau": 0.0, "linearisations": 0}),
}
METHODS = ("exact", "ddis-gn", *WEIGHTS, "eci", *VARIANTS)
COLUMNS = ("weight", "bias", "spread", "spread_observed", "spread_unobserved", "coverage90", "sample_error", "mean_error")
RESULTS = Path(__file__).parent / "results"


class JointGaussianDenoiser:
    """The optimal denoiser of jointly Gaussian fields with dense covariance, and noise that is diagonal in the basis.

    Args:
        covariance: of the coefficients of C fields in the basis [C P, C P].
        noise_spectrum: variance Γ [S, S] of the noise's modes, the same for all channels.
    """

    def __init__(self, modes: Basis, covariance: Tensor, noise_spectrum: Tensor):
        self.modes, self.channels = modes, len(covariance) // math.prod(modes.shape)
        root = noise_spectrum.flatten().repeat(self.channels).sqrt()
        values, vectors = torch.linalg.eigh(covariance / root[:, None] / root)
        self.values = values.clamp_min(0)
        self.analysis, self.synthesis = vectors / root[:, None], root[:, None] * vectors

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        values = self.values.to(x_t)
        gain = values / (values + sigma.to(x_t)[:, None] ** 2)
        coefficients = self.modes.forward(x_t).flatten(1) @ self.analysis.to(x_t)
        return self.modes.inverse(((coefficients * gain) @ self.synthesis.to(x_t).T).reshape(x_t.shape))


class JointGaussianVelocity:
    """The best velocity of a flow to jointly Gaussian fields, sigma_min 0: v = (D(x_t / t; (1 - t) / t) - x_t) / (1 - t)."""

    def __init__(self, modes: Basis, covariance: Tensor, noise_spectrum: Tensor):
        self.denoise = JointGaussianDenoiser(modes, covariance, noise_spectrum)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        time = t.clamp_min(1e-6)
        clean = self.denoise(x_t / per_field(time, x_t), (1 - time) / time)
        return (clean - x_t) / per_field(1 - t, x_t)


@dataclass(frozen=True)
class Setting:
    """n observed fields, and the posterior of the normalised free coefficient in the basis.

    task          with the coefficient's denoiser; of(method, ...) gives that of a method
    solve         G [P, P] in the basis
    jacobian      M G [n, m, P]
    mean          [n, P]; covariance [n, P, P]
    """

    task: Batch
    solve: Tensor
    jacobian: Tensor
    mean: Tensor
    covariance: Tensor

    def of(self, method: str, chains: int) -> Batch:
        """The task of a method with `chains` chains per field."""
        made, task = load_method(method), self.task
        noise = WhiteNoise() if made.noise == "white" else task.noise
        prior: Any = task.prior
        if made.prior in ("joint", "flow"):
            c, g = torch.diag(task.spectrum.flatten()), self.solve
            joint = torch.cat([torch.cat([c, c @ g.T], dim=1), torch.cat([g @ c, g @ c @ g.T], dim=1)])
            best = JointGaussianDenoiser if made.prior == "joint" else JointGaussianVelocity
            prior = best(task.basis, joint, noise.spectrum(task.basis))
        fields = len(self.mean)
        generators = [generator(SEED, "chain", f, sample) for f in range(fields) for sample in range(chains)]
        return replace(task, generators=generators, noise=noise, prior=prior)


def make_setting(pde: str, fields: int = FIELDS) -> Setting:
    """Fields, observations and their exact posteriors; all from SEED."""
    problem, modes = make_problem(pde, {}, SIZE), basis("cosine", SIZE)
    solution = Normalisation(0.0, float(problem.solve(problem.sample_coefficients(range(100, 164), SIZE, SEED)).std()))
    noise = DiagonalNoise(RandomFieldNoise(square(SIZE), "exponential", 0.1), modes)
    prior = gaussian(problem, noise)
    index = torch.stack([torch.from_numpy(draw_nodes(square(SIZE), OBSERVED, SEED, f)) for f in range(fields)])
    solutions = problem.solve(problem.sample_coefficients(range(fields), SIZE, SEED))
    error = torch.stack([torch.from_numpy(generator(SEED, "observation", f).standard_normal(OBSERVED)) for f in range(fields)])
    observed = solutions.flatten(1).gather(1, index) + NOISE * solution.std * error
    posterior = Posterior(problem, prior, Solver(problem, solution), Nodes(index, NOISE * solution.std), observed)
    task = posterior.batch(load_method("exact")(run_settings("exact", {})), slice(None), [])
    operator, spectrum, variance, values = task.operator, prior.spectrum, (NOISE * SIGMA_DATA) ** 2, task.observation.values

    units = torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)
    solved = operator(modes.inverse(units))
    rows = solved.flatten(1).T[index]
    prior = torch.diag(spectrum.flatten())
    gain = prior @ rows.mT @ torch.linalg.inv(rows @ prior @ rows.mT + variance * torch.eye(OBSERVED, dtype=torch.float64))
    mean = (gain @ values[:, :, None])[..., 0]
    return Setting(task, modes.forward(solved).flatten(1).T, rows, mean, prior - gain @ rows @ prior)


def draw(setting: Setting, method: str, chains: int, **settings: Any) -> Tensor:
    """Samples [n, chains, P] of the normalised free coefficient in the basis, float64."""
    task = setting.of(method, chains)
    sampler = load_method(method)(run_settings(method, {"samples": chains, **settings}))
    *_, last = sampler.sample(task, sampler.prepare(task))
    return task.basis.forward(last.x0.double()).reshape(len(setting.mean), chains, -1)


def informed_directions(setting: Setting) -> tuple[Tensor, Tensor]:
    """Directions V [n, P, P] (columns) of the coefficient that the prior and the data make independent, and λ [n, P].

    vᵀx has the variance 1 in the prior and 1/(1 + λ) in the posterior. The mode that does not vary is left out.
    """
    c = setting.task.spectrum.flatten()
    root = c.sqrt()[c > 0]
    variance = setting.task.observation.covariance[0, 0, 0]
    weighted = setting.jacobian[..., c > 0] * root
    values, vectors = torch.linalg.eigh(weighted.mT @ weighted / variance)
    directions = torch.zeros(len(values), len(c), len(root), dtype=torch.float64)
    directions[:, c > 0] = vectors / root[:, None]
    return directions, values.clamp_min(0)


def gap(setting: Setting, samples: Tensor) -> dict[str, float]:
    """The columns of the table but the weight, of samples [n, K, P]."""
    chains = samples.shape[1]
    mean, variance = samples.mean(dim=1), samples.var(dim=1).sum(dim=1)
    bias2 = ((mean - setting.mean) ** 2).sum(dim=1).sub(variance / chains).mean().clamp_min(0)
    sample_trace, trace = variance.mean(), setting.covariance.diagonal(dim1=1, dim2=2).sum(dim=1).mean()
    directions, informed = informed_directions(setting)
    ratio = (samples @ directions).var(dim=1) * (1 + informed)

    units = torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)
    functions = setting.task.basis.inverse(units).flatten(1)
    sd = ((functions.T @ setting.covariance) * functions.T).sum(dim=-1).sqrt()
    centre = ((mean - setting.mean) @ functions) / sd
    half = stats.t.ppf(0.95, chains - 1) * (1 + 1 / chains) ** 0.5 * (samples @ functions).std(dim=1) / sd
    return {
        "bias": float((bias2 / (setting.mean**2).sum(dim=1).mean()).sqrt()),
        "spread": float((sample_trace / trace).sqrt()),
        "spread_observed": float(ratio[informed > 1].mean().sqrt()),
        "spread_unobserved": float(ratio[informed <= 1].mean().sqrt()),
        "coverage90": float((torch.special.ndtr(centre + half) - torch.special.ndtr(centre - half)).mean()),
        "sample_error": float(((bias2 + sample_trace + trace) / (2 * trace)).sqrt()),
        "mean_error": float(((bias2 + trace) / trace).sqrt()),
    }


def measure(setting: Setting, pde: str, method: str) -> dict[str, Any]:
    """One row: the weight with the smallest error of a sample, and the gap there; with the curve over the weights."""
    name, settings = VARIANTS.get(method, (method, dict(PUBLISHED.get((pde, method), {}))))
    row: dict[str, Any] = {"problem": pde, "method": method, "weight": None}
    if method in WEIGHTS:
        curve = {w: gap(setting, draw(setting, method, TUNING_CHAINS, weight=w, **settings)) for w in WEIGHTS[method]}
        row["curve"] = {w: values["sample_error"] for w, values in curve.items() if values["sample_error"] < DIVERGED}
        row["weight"] = min(row["curve"], key=row["curve"].__getitem__)
        settings = settings | {"weight": row["weight"]}
    return row | gap(setting, draw(setting, name, CHAINS, **settings))


def table(rows: list[dict[str, Any]]) -> str:
    head = ["problem", "method", *(name.replace("_", " ") for name in COLUMNS)]
    body = [
        [row["problem"], f"`{row['method']}`", *("" if row[name] is None else f"{row[name]:.3g}" for name in COLUMNS)]
        for row in rows
    ]
    return pipe_table(head, body)


def main() -> None:
    parser = argparse.ArgumentParser(description="distance of each sampler to the exact posterior")
    parser.add_argument("--problem", choices=PROBLEMS, nargs="+", default=PROBLEMS)
    parser.add_argument("--method", choices=METHODS, nargs="+", default=METHODS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "posterior_gap.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = {(row["problem"], row["method"]): row for row in known}
    for pde in arguments.problem:
        setting = make_setting(pde)
        for method in arguments.method:
            rows[pde, method] = measure(setting, pde, method)
            print(table([rows[pde, method]]), flush=True)
    ordered = [rows[key] for key in ((pde, method) for pde in PROBLEMS for method in METHODS) if key in rows]
    path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "posterior_gap.md").write_text(table(ordered) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
