"""Why joint priors of navier-stokes are told coordinates: one that is, and one that is not.

    python benchmarks/forcing_modes.py

The forcing has the wavenumbers ±(1, 1) alone, and moves the distribution of the solutions. A network with circular padding
commutes with shifts, so that without coordinates a joint prior cannot know where the forcing is. Two joint priors of one
architecture are trained on the pairs of config/turbulence-32.yaml (navier-stokes, 32 x 32 nodes), with its settings; `fundps`
draws a sample for each of 16 fresh fields, 125 noiseless values each, at three weights. One seed. Writes
benchmarks/results/forcing_modes.md. Minutes on one core.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ddis
from ddis.config import Study
from ddis.evaluation.metrics import relative_l2
from ddis.fields.noise import Noise, make_noise
from ddis.files import write_text
from ddis.grid import Grid
from ddis.models.normalisation import Normalisation
from ddis.pde.base import Problem
from ddis.priors import Prior
from ddis.randomness import generator
from ddis.sampling.methods import load_method, run_settings
from ddis.stages.common import keep_freed_memory
from ddis.text import pipe_table
from ddis.training.loop import Trainer

ROOT, SEED = Path(__file__).parents[1], 0
COUNTS = {"train": 5000, "validation": 200, "test": 16}
OBSERVED, WEIGHTS = 125, (500.0, 1000.0, 2000.0)
SHIFT, SIGMA = (8, 4), 1.0  # the nodes are halved twice: multiples of four are whole steps
RESULT = ROOT / "benchmarks" / "results" / "forcing_modes.md"
HEAD = ["coordinates", "weight", "l2 of a sample, %", "squared error in the forcing's modes, %", "l2 without them, %"]

Pairs = tuple[Tensor, Tensor]


def forced(fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """What fields [N, S, S] have in the modes ±(1, 1)."""
    spectrum = np.fft.fft2(fields)
    kept = np.zeros_like(spectrum)
    kept[:, 1, 1], kept[:, -1, -1] = spectrum[:, 1, 1], spectrum[:, -1, -1]
    return np.asarray(np.fft.ifft2(kept).real)


def make_pairs(problem: Problem, size: int) -> dict[str, Pairs]:
    """Coefficients and solutions [N, S, S] by split."""
    start, pairs = 0, {}
    for split, count in COUNTS.items():
        a = problem.sample_coefficients(range(start, start + count), size, SEED)
        pairs[split] = a, torch.cat([problem.solve(part) for part in a.split(100)])
        start += count
    return pairs


def trained(study: Study, fields: dict[str, Tensor], grid: Grid, noise: Noise, coordinates: bool) -> nn.Module:
    """The denoiser of normalised pairs [N, 2, S, S] by split."""
    torch.manual_seed(SEED)
    settings = study.joint
    network, average = (settings.build(2, grid, coordinates) for _ in range(2))
    loss = settings.training_loss(network, fields["train"], noise, SEED, 0)
    validate = settings.validation_loss(fields["validation"], noise, SEED)
    trainer = Trainer(network, loss, validate, len(fields["train"]), settings.training, SEED, average)
    for _ in trainer.run():
        pass
    average.load_state_dict(trainer.best)
    return average.eval().requires_grad_(False)


def shift_error(network: nn.Module, grid: Grid) -> float:
    """How far a denoiser is from commuting with a shift, relative to its largest value."""
    x = torch.randn(1, 2, *grid.shape, generator=torch.Generator().manual_seed(SEED))
    level = torch.tensor([SIGMA])
    shifted, expected = network(x.roll(SHIFT, (-2, -1)), level), network(x, level).roll(SHIFT, (-2, -1))
    return float((shifted - expected).abs().max() / expected.abs().max())


def scores(posterior: ddis.Posterior, truth: NDArray[np.float64], weight: float) -> list[str]:
    """Errors of one sample for each field, and the share of their squares in the modes of the forcing."""
    settings = run_settings("fundps", {"method": "fundps", "samples": 1, "steps": 350, "weight": weight})
    method = load_method("fundps")(settings.for_case("", ""))
    drawn = posterior.draw(method, [generator(SEED, "forcing", number) for number in range(len(truth))])
    error = posterior.physical(drawn.x0).double().numpy() - truth
    whole, rest = (100 * float(np.mean(relative_l2(truth + part, truth))) for part in (error, error - forced(error)))
    share = 100 * (forced(error) ** 2).sum() / (error**2).sum()
    return [f"{weight:g}", f"{whole:.1f}", f"{share:.0f}", f"{rest:.1f}"]


def main() -> None:
    study = Study.load(ROOT / "config" / "turbulence-32.yaml")
    problem = ddis.problem("navier-stokes", resolution=study.data.resolution)
    grid = problem.coefficient_space(study.data.resolution).grid
    pairs = make_pairs(problem, study.data.resolution)
    scales = [Normalisation.of(field.numpy()) for field in pairs["train"]]
    fields = {
        split: torch.stack([scale.normalise(field) for scale, field in zip(scales, pair, strict=True)], dim=1).float()
        for split, pair in pairs.items()
    }
    noise, unknown = make_noise(grid.basis, **study.noise.model_dump()), torch.zeros(grid.shape, dtype=torch.float64)
    truth, solution = (field.numpy() for field in pairs["test"])
    nodes = np.sort(np.random.default_rng(SEED).permutation(truth[0].size)[:OBSERVED])
    rows, told = [], []
    for coordinates in (False, True):
        name = "with" if coordinates else "without"
        network = trained(study, fields, grid, noise, coordinates)
        prior = Prior(network, noise, scales[0], unknown, unknown, scales[1], kind="joint")
        values = solution.reshape(len(solution), -1)[:, nodes]
        posterior = ddis.Posterior(problem, prior, None, ddis.observe.nodes(nodes), values)
        rows += [[name, *scores(posterior, truth, weight)] for weight in WEIGHTS]
        told.append(f"{shift_error(network, grid):.0e} {name} coordinates")
        print(*rows[-len(WEIGHTS) :], told[-1], sep="\n", flush=True)
    far = f"Largest difference of the network's output for shifted fields from its output, shifted: {' and '.join(told)}."
    write_text(RESULT, f"{pipe_table(HEAD, rows)}\n\n{far}\n")


if __name__ == "__main__":
    keep_freed_memory()
    main()
