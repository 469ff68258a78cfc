"""Backbones of priors at equal cost: the same processor time of training.

    python benchmarks/backbones.py

2,000 coefficients of poisson on 32 x 32 nodes, white noise, 15 s of one thread for each training, in which a backbone takes as
many steps of 16 fields as it can, at a learning rate of 3e-3; one seed. Then the denoising loss on 128 fresh fields, beside that
of the best linear denoiser, which here is the best of all. Writes benchmarks/results/backbones.md.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddis.fields.bases import Basis
from ddis.fields.noise import WhiteNoise
from ddis.files import write_text
from ddis.models.backbones import Backbone, backbone_of
from ddis.models.denoiser import GaussianDenoiser
from ddis.models.edm import EDMDenoiser
from ddis.models.normalisation import Normalisation
from ddis.pde import make_problem
from ddis.stages.common import keep_freed_memory
from ddis.training import denoising
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

SEED, SIZE, SECONDS, BATCH = 3, 32, 15.0, 16
COUNTS = {"train": 2000, "validation": 256, "test": 128}
RATE = 3e-3
LEVELS = (-1.2, 1.2)  # mean and standard deviation of ln σ
PROBLEM = "poisson"
BACKBONES: dict[str, dict[str, Any]] = {
    "U-Net": {"name": "unet"},
    "U-Net, attention at 8 x 8": {"name": "unet", "attention": [2]},
    "UNO": {"name": "uno"},
    "UNO, rank 0.1, attention at 8 x 8": {"name": "uno", "rank": 0.1, "attention": [2]},
}
RESULT = Path(__file__).parent / "results" / "backbones.md"


@dataclass
class Fields:
    """Normalised coefficients [N, 1, S, S] of a problem by split, and the best linear denoiser."""

    name: str
    splits: dict[str, Tensor]
    linear: GaussianDenoiser

    @classmethod
    def of(cls, name: str) -> "Fields":
        problem, start, splits = make_problem(name, {}, SIZE), 0, {}
        for split, count in COUNTS.items():
            splits[split] = problem.relax(problem.sample_coefficients(range(start, start + count), SIZE, SEED))
            start += count
        scale = Normalisation.of(splits["train"].numpy())
        normalised = {split: scale.normalise(fields) for split, fields in splits.items()}
        basis: Basis = problem.coefficient_space(SIZE).grid.basis
        spectrum = basis.forward(normalised["train"]).var(dim=0)
        linear = GaussianDenoiser(basis, spectrum, WhiteNoise().spectrum(basis))
        return cls(name, {split: fields[:, None].float() for split, fields in normalised.items()}, linear)

    def loss(self, split: str) -> Callable[[nn.Module], float]:
        return denoising.validation_loss(self.splits[split], WhiteNoise(), LEVELS, SEED)


def trainer(fields: Fields, backbone: Backbone, steps: int) -> Trainer:
    """Of a fresh network; its best average on validation fields is kept."""
    torch.manual_seed(SEED)
    grid = make_problem(fields.name, {}).coefficient_space(SIZE).grid
    network, average = (EDMDenoiser(backbone.build(1, grid)) for _ in range(2))
    settings = TrainingSettings(steps=steps, batch=BATCH, learning_rate=RATE, validate_every=max(1, steps // 4))
    loss = denoising.training_loss(network, fields.splits["train"], WhiteNoise(), LEVELS, SEED)
    return Trainer(network, loss, fields.loss("validation"), COUNTS["train"], settings, SEED, average)


def trained(fields: Fields, backbone: Backbone, steps: int) -> nn.Module:
    made = trainer(fields, backbone, steps)
    for _ in made.run():
        pass
    made.average.load_state_dict(made.best)
    return made.average


def step_seconds(fields: Fields, backbone: Backbone) -> float:
    """Processor time of a step of training, the shortest of several: other programs on the machine do not count."""
    run, times = trainer(fields, backbone, 10**6).run(), []
    for _ in range(12):
        begin = time.process_time()
        next(run)
        times.append(time.process_time() - begin)
    return min(times)


def row(fields: Fields, label: str) -> str:
    backbone = backbone_of(BACKBONES[label])
    step = step_seconds(fields, backbone)
    steps = round(SECONDS / step)
    network = trained(fields, backbone, steps)
    count = sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        loss = fields.loss("test")(network)
    return f"| {label} | {count:,} | {1000 * step:.0f} | {steps:,} | {loss:.4f} |"


def page(rows: list[str]) -> str:
    about = __doc__.split("\n\n")[2].replace("\n", " ") if __doc__ else ""
    head = [
        "| backbone | parameters | ms a step | steps | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    return "\n".join(["# Backbones of priors at equal cost", "", f"`benchmarks/backbones.py`. {about}", "", *head, *rows, ""])


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    fields, rows = Fields.of(PROBLEM), []
    for label in BACKBONES:
        rows.append(row(fields, label))
        print(rows[-1], flush=True)
    linear = fields.loss("test")(fields.linear)  # type: ignore[arg-type]
    rows.append(f"| the best linear denoiser | | | | {linear:.4f} |")
    write_text(RESULT, page(rows))


if __name__ == "__main__":
    main()
