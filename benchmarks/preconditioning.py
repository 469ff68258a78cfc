"""Preconditioning of priors: EDM's multiples of x_t against the Wiener filter, at the same number of steps.

    python benchmarks/preconditioning.py

10,000 coefficients on 32 x 32 nodes, the noise of the studies, a U-Net of three levels, 400 steps of 32 fields, learning rate
2e-3, ln σ of mean -1.6, groups of one channel at the finest level; one seed. Then the squared error on 256 fresh fields, the same
for all denoisers: by how many percent it is above that of the optimal denoiser; of darcy and of pairs (a, u), where that is not
known, above that of the filter alone. Writes benchmarks/results/preconditioning.md. Twelve minutes on one core that was busy with
other work too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddis.fields.noise import Noise, make_noise
from ddis.files import write_text
from ddis.grid import Grid
from ddis.models.denoiser import Denoiser, GaussianDenoiser
from ddis.models.normalisation import Normalisation
from ddis.pde import make_problem
from ddis.priors import mixture
from ddis.priors.gaussian import moments
from ddis.stages.common import keep_freed_memory
from ddis.text import pipe_table
from ddis.training.denoising import denoising_errors
from ddis.training.diffusion import DiffusionSettings
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

SEED, SIZE = 4, 32
COUNTS = {"train": 10_000, "validation": 256, "test": 256}
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TRAINING = TrainingSettings(steps=400, batch=32, learning_rate=2e-3)
PAIRS = "poisson, pairs"
PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "poisson, a mixture": ("poisson", {"alpha": [1.5, 3.0], "tau": [2.0, 4.0]}),
    "poisson, Gaussian": ("poisson", {}),
    "darcy, two values": ("darcy", {}),
    PAIRS: ("poisson", {}),
}
FILTER = "the filter alone"
RESULT = Path(__file__).parent / "results" / "preconditioning.md"


@dataclass
class Fields:
    """Normalised coefficients, or pairs, [N, C, S, S] of a problem by split, their noise, and denoisers to compare with.

    filter: the Wiener filter; optimal: the optimal denoiser, or the filter where that is not known.
    """

    splits: dict[str, Tensor]
    noise: Noise
    grid: Grid
    filter: Denoiser
    optimal: Denoiser

    @classmethod
    def of(cls, pde: str, parameters: dict[str, Any], pairs: bool) -> "Fields":
        problem = make_problem(pde, parameters, SIZE)
        grid = problem.coefficient_space(SIZE).grid
        noise = make_noise(grid.basis, "exponential", 0.64 / SIZE, 1e-4, True)
        coefficients = problem.sample_coefficients(range(sum(COUNTS.values())), SIZE, SEED)
        kinds = [problem.relax(coefficients), problem.solve(coefficients)][: 1 + pairs]
        scales = [Normalisation.of(fields[: COUNTS["train"]].numpy()) for fields in kinds]
        normalised = torch.stack([scale.normalise(fields) for scale, fields in zip(scales, kinds, strict=True)], dim=1)
        splits = dict(zip(COUNTS, normalised.float().split(list(COUNTS.values())), strict=True))
        mean, spectrum = moments([grid.basis.forward(splits["train"].double())])
        alone = GaussianDenoiser(grid.basis, spectrum, noise.spectrum(grid.basis), grid.basis.inverse(mean))
        known = not pairs and problem.prior_mixture(SIZE) is not None
        optimal = mixture(problem, noise, scales[0].without_mean).denoise if known else alone
        assert optimal is not None
        return cls(splits, noise, grid, alone, optimal)


def trained(fields: Fields, **given: Any) -> nn.Module:
    """A denoiser of these settings."""
    settings = DiffusionSettings.model_validate(given)
    torch.manual_seed(SEED)
    network, average = (settings.build(fields.splits["train"].shape[1], fields.grid) for _ in range(2))
    settings.fit(network, lambda grid: [fields.splits["train"]], lambda grid: fields.noise)
    loss = settings.training_loss(network, fields.splits["train"], fields.noise, SEED, 0)
    validate = settings.validation_loss(fields.splits["validation"], fields.noise, SEED)
    made = Trainer(network, loss, validate, COUNTS["train"], TRAINING, SEED, average)
    for _ in made.run():
        pass
    made.average.load_state_dict(made.best)
    return made.average


def rows(name: str) -> list[list[str]]:
    """Excess in percent of each denoiser, by level."""
    fields = Fields.of(*PROBLEMS[name], pairs=name == PAIRS)
    common: dict[str, Any] = {"log_sigma_mean": -1.6, "backbone": {"group": 1}}
    denoisers: dict[str, Denoiser] = {kind: trained(fields, preconditioning=kind, **common) for kind in ("edm", "wiener")} | {
        FILTER: fields.filter
    }
    errors = denoising_errors([*denoisers.values(), fields.optimal], fields.splits["test"], fields.noise, SIGMAS, SEED)
    excess = 100 * (errors[:, :-1] / errors[:, -1:] - 1)
    return [[name, label, *(f"{value:.1f}" for value in column)] for label, column in zip(denoisers, excess.T, strict=True)]


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    about, measured = (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(), []
    for name in PROBLEMS:
        measured += rows(name)
        print(measured[-3:], flush=True)
    head = ["fields", "preconditioning", *(f"σ = {sigma:g}" for sigma in SIGMAS)]
    table = pipe_table(head, measured, [False, False, *[True] * len(SIGMAS)])
    write_text(RESULT, f"# Preconditioning of priors\n\n`benchmarks/preconditioning.py`. {about}\n\n{table}\n")


if __name__ == "__main__":
    main()
