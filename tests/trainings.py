"""Two tiny trainings, a study to train, and what test_distributed.py runs under torchrun with them: `trainings.py FOLDER`."""

import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

from ddis.config import Study
from ddis.fields.bases import basis
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise
from ddis.grid import Space, square
from ddis.models.architectures import Architecture
from ddis.models.architectures.fno import FNO
from ddis.models.backbones import Backbone
from ddis.models.backbones.unet import UNet
from ddis.models.checkpoint import load_tensors, save_tensors
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.stages import generate
from ddis.training import denoising, regression
from ddis.training.acceleration import accelerate
from ddis.training.diffusion import DiffusionSettings
from ddis.training.distributed import Ranks, processes
from ddis.training.flow import FlowSettings
from ddis.training.loop import Trainer
from ddis.training.settings import TrainingSettings

SETTINGS = TrainingSettings(steps=9, batch=4, warmup=2, validate_every=3, learning_rate=1e-2)


def denoiser_trainer(
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    dtype: torch.dtype = torch.float32,
    settings: TrainingSettings = SETTINGS,
    backbone: Backbone = UNet(channels=(8, 8), blocks=(1, 1), embedding=8, dropout=0.1),  # noqa: B008 (frozen)
    preconditioning: str = "edm",
) -> Trainer:
    torch.manual_seed(0)
    kind = DiffusionSettings(preconditioning=preconditioning, backbone=backbone)
    network, average = (kind.build(1, square(16)) for _ in range(2))
    if dtype != torch.float32:  # which would make complex weights real
        network, average = network.to(dtype), average.to(dtype)
    accelerate(network.backbone, settings)
    data = (0.5 * torch.randn(10, 1, 1, 1)).expand(10, 1, 16, 16).to(dtype)  # soon learnt
    noise = DiagonalNoise(RandomFieldNoise(square(16), "exponential", 0.1), basis("cosine", 16))
    kind.fit(network, lambda grid: [data], lambda grid: noise)
    levels = (-1.2, 1.2)
    loss = denoising.training_loss(network, data, noise, levels, seed=3, first=ranks.places(settings.batch).start)
    validate = denoising.validation_loss(data[:4], noise, levels, 3, fields=8)
    return Trainer(network, loss, validate, 10, settings, 3, average, ranks)


wiener_trainer = partial(denoiser_trainer, preconditioning="wiener")


def flow_trainer() -> Trainer:
    torch.manual_seed(0)
    settings = FlowSettings(backbone=UNet(channels=(8, 8), blocks=(1, 1), embedding=8, dropout=0.1))
    network, average = (settings.build(2, square(16)) for _ in range(2))
    data = (0.5 * torch.randn(10, 2, 1, 1)).expand(10, 2, 16, 16)
    noise = DiagonalNoise(RandomFieldNoise(square(16), "exponential", 0.1), basis("cosine", 16))
    loss = settings.training_loss(network, data, noise, 3, 0)
    return Trainer(network, loss, settings.validation_loss(data[:4], noise, 3), 10, SETTINGS, 3, average)


def operator_trainer(
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    settings: TrainingSettings = SETTINGS,
    architecture: Architecture = FNO(modes=4, width=4, layers=2),  # noqa: B008 (frozen)
) -> Trainer:
    torch.manual_seed(0)
    scale = Normalisation(0.0, 0.5)
    network, average = (NeuralOperator(architecture, (Space(square(16)),) * 2, scale, scale) for _ in range(2))
    accelerate(network.network, settings)
    a = torch.randn(10, 16, 16)
    u = -0.5 * a
    loss, validate = regression.training_loss(network, a, u), regression.validation_loss(a[:4], u[:4])
    return Trainer(network, loss, validate, 10, settings, 3, average, ranks)


def study_with_data(content: dict[str, Any]) -> Study:
    """The study of a configuration, with its file and the data of its trainings, in the working directory."""
    study = Study.load(content)
    study.folder.mkdir(parents=True)
    (study.folder / "config.yaml").write_text(yaml.safe_dump(study.resolved()))
    for problem, split in product(study.problems, ("train", "validation")):
        generate.run(study, problem, split)
    return study


def finish(trainer: Trainer) -> Trainer:
    for _ in trainer.run():
        pass
    return trainer


def save(trainer: Trainer, path: Path) -> None:
    tensors, progress = trainer.state()
    save_tensors(path, tensors, {"progress": progress})


def load(trainer: Trainer, path: Path) -> Trainer:
    tensors, metadata = load_tensors(path)
    trainer.load_state(tensors, metadata["progress"])
    return trainer


def all_ways(folder: Path, ranks: Ranks) -> None:
    """Trainings in the number of processes that there are; each process saves its own state."""
    ends = {
        "double": finish(denoiser_trainer(ranks, torch.float64)),
        "denoiser": finish(denoiser_trainer(ranks)),
        "wiener": finish(wiener_trainer(ranks, torch.float64)),
        "operator": finish(operator_trainer(ranks)),
        "resumed": finish(load(denoiser_trainer(ranks), folder / "one-process")),
        "stopped": denoiser_trainer(ranks),
    }
    stopped = ends["stopped"]
    # The signal comes to the last process, after four steps.
    for _ in stopped.run(lambda: 15 if ranks.rank == ranks.size - 1 and stopped.progress.step == 4 else 0):
        pass
    for name, trainer in ends.items():
        save(trainer, folder / f"{name}-{ranks.rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as ranks:
        all_ways(Path(sys.argv[1]), ranks)
