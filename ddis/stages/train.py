"""Stage `train`: a prior, a joint prior or an operator; resumes from its checkpoint, and writes it when a signal comes.

Under torchrun several processes share the steps; the first of them writes all files and is the one that tracking sees.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddis.checks import check_model
from ddis.config import Study
from ddis.data.hdf5 import read_attributes
from ddis.data.store import FIELDS, PAIRS, PairsFile
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise
from ddis.files import write_csv, write_json
from ddis.grid import Grid, Space
from ddis.models.checkpoint import load_unfinished, save_tensors
from ddis.models.ids import OPERATOR, ModelId
from ddis.models.normalisation import KINDS, Normalisation
from ddis.models.operator import NeuralOperator
from ddis.pde.base import symmetries_of
from ddis.priors.gaussian import moments
from ddis.progress import Progress
from ddis.randomness import generator
from ddis.refusals import told
from ddis.signals import Stopped, StopRequest
from ddis.stages.common import (
    fingerprint,
    load_pairs,
    open_split,
    resolve_device,
    settle,
    stage,
    training_normalisation,
    training_share,
    validation_share,
)
from ddis.stages.layout import data_path, model_folder
from ddis.tracking import Shapes, StageRun
from ddis.trained import noise_of, prior_channels, untrained
from ddis.training import denoising, noisy, regression
from ddis.training.acceleration import accelerate
from ddis.training.coarse import restricted
from ddis.training.distributed import Ranks, processes
from ddis.training.loop import HistoryRow, Trainer


@dataclasses.dataclass
class Job:
    """A training, and what is written of its result beside the weights."""

    trainer: Trainer
    normalisation: dict[str, Normalisation]
    sizes: dict[str, int]
    spectrum: Tensor | None = None


def run(study: Study, problem: str, model: str) -> None:
    """Writes models/<problem>/<model>/{weights.safetensors, model.json, history.csv} (and denoising.csv of a prior).

    Raises InputError for a model that cannot be trained on the problem, which a run that needs it is checked for.
    """
    check_model(study, ModelId.parse(model), [problem])
    with processes(resolve_device(study.device)) as ranks:
        if ranks.rank == 0:
            _lead(study, problem, model, ranks)
        else:
            with settle(study):
                train_to_end(study, problem, model, make_job(study, problem, model, ranks), None)


def _lead(study: Study, problem: str, model: str, ranks: Ranks) -> None:
    """The whole stage; other processes only take their part of the steps."""
    named = ModelId.parse(model)
    with stage(study, "train", problem=problem, model=model) as (tracker, record):
        job = make_job(study, problem, model, ranks)
        path = data_path(study, problem, "train")
        digest = read_attributes(path, PAIRS)["digest"]
        tracker.dataset(f"{problem} {named.percent or 100} %", path, digest, **job.sizes, resolution=study.data.resolution)
        with tracker.loop():
            checkpoint = train_to_end(study, problem, model, job, tracker)
            found, denoised = judge(study, problem, named, job)
        digest = study.digest("train", problem=problem, model=model)
        folder = model_folder(study, problem, model)
        information: dict[str, Any] = {
            "model": model,
            "configuration": digest,
            "settings": study.inputs("train", problem=problem, model=model)["settings"],
            "parameters": sum(p.numel() for p in job.trainer.model.parameters()),
            "normalisation": {name: dataclasses.asdict(n) for name, n in job.normalisation.items()},
            **job.sizes,
            "processes": ranks.size,
            "validation_loss": job.trainer.progress.best_loss,
            **found,
        }
        if denoised:
            write_csv(folder / "denoising.csv", denoised, list(denoised[0]))
            tracker.artifact(folder / "denoising.csv")
        columns = [f.name for f in dataclasses.fields(HistoryRow)]
        write_csv(folder / "history.csv", job.trainer.progress.history, columns)
        write_json(folder / "model.json", {**information, "provenance": record})
        save_tensors(folder / "weights.safetensors", job.trainer.best, {"configuration": digest, "model": model})
        for name in ("history.csv", "model.json"):
            tracker.artifact(folder / name)
        tracker.network(folder, *signature(study, problem, named))
        checkpoint.unlink(missing_ok=True)


def judge(study: Study, problem: str, model: ModelId, job: Job) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The best network on held-out fields: what is told of its errors beside the weights, and the rows of denoising.csv.

    The fields have all the study's nodes, also where the network was trained on fewer: these are the errors that it samples with.
    """
    best = job.trainer.average
    best.load_state_dict(job.trainer.best)
    if isinstance(best, NeuralOperator):
        validation, share = load_pairs(study, problem, "validation"), validation_share(study, model.percent)
        a, u = (torch.from_numpy(field[share]) for field in (validation.coefficient, validation.solution))
        basis = study.make_problem(problem).solution_space(study.data.resolution).grid.basis
        return regression.held_out_error(best, a, u, basis), []
    spectrum = {"spectrum": None if job.spectrum is None else job.spectrum.tolist()}
    return spectrum, prior_quality(study, problem, best, job) if model.part == "prior" else []


def signature(study: Study, problem: str, model: ModelId) -> tuple[Shapes, Shapes]:
    """Shapes of what a network takes and gives, by name, as `ddis.stages.pyfunc` loads it."""
    coefficient, solution = study.make_problem(problem).spaces(study.data.resolution)
    if model.part == OPERATOR:
        return {"coefficient": (-1, *coefficient.shape)}, {"solution": (-1, *solution.shape)}
    fields = (-1, prior_channels((coefficient, solution), model), *coefficient.grid.shape)
    section = study.prior_section(model)
    return dict(zip(section.takes, (fields, (-1,)), strict=True)), {section.gives: fields}


def make_job(study: Study, problem: str, model: str, ranks: Ranks) -> Job:
    """The training of a model, from its first weights."""
    named = ModelId.parse(model)
    device = resolve_device(study.device)
    torch.manual_seed(int(generator(study.seed, f"initialise {model}").integers(2**62)))
    return (operator_job if named.part == OPERATOR else prior_job)(study, problem, named, device, ranks)


def train_to_end(study: Study, problem: str, model: str, job: Job, tracker: StageRun | None) -> Path:
    """Runs the loop from the checkpoint that is there to the end; returns the checkpoint's path.

    The process with a tracker logs progress and metrics, and writes a checkpoint every `checkpoint_seconds`. Raises Stopped after
    a signal, when the checkpoint of the step that was under way is written.
    """
    trainer = job.trainer
    digest = study.digest("train", problem=problem, model=model)
    mark = fingerprint(study, problem, "train", digest)
    checkpoint = study.folder / "work" / problem / f"{model}-{mark}.safetensors"
    if checkpoint.exists():
        tensors, metadata = load_unfinished(checkpoint, digest)
        trainer.load_state(tensors, metadata["progress"])

    def save() -> float:
        tensors, state = trainer.state()
        save_tensors(checkpoint, tensors, {"configuration": digest, "progress": state})
        return time.monotonic()

    progress = Progress(f"{problem} {model}", trainer.settings.steps, start=trainer.progress.step)
    saved = time.monotonic()
    with StopRequest() as request:
        for row in trainer.run(request.received):
            if tracker is None:
                continue
            progress.update(row.step, loss=row.train_loss, validation=trainer.progress.best_loss)
            if row.validation_loss is not None:
                values = {"train_loss": row.train_loss, "validation_loss": row.validation_loss}
                tracker.metrics({**values, "learning_rate": row.learning_rate}, step=row.step)
            if trainer.stopped or time.monotonic() - saved > study.checkpoint_seconds:
                saved = save()
        if trainer.stopped:
            raise Stopped(trainer.progress.step, trainer.stopped)
    if tracker is not None:
        progress.finish()
    return checkpoint


def diffusion_noise(study: Study, problem: str, model: ModelId, resolution: int) -> tuple[Basis, Noise]:
    """The problem's basis at a resolution, and the noise of a prior on its grid."""
    modes = study.make_problem(problem).coefficient_space(resolution).grid.basis
    return modes, noise_of(study.noise_of(model), modes, model.white)


def scale(study: Study, problem: str, kind: str, rows: np.ndarray | None = None) -> Normalisation:
    """Of the training fields that a model may see; kind: see `ddis.models.normalisation`."""
    with told(f"{problem} {KINDS[kind]}: "):
        return training_normalisation(study, problem, kind, rows)


def spectrum_of(space: Space, parts: Iterable[Tensor]) -> Tensor:
    """Variance [*shape] of the modes of normalised fields [N, C, *nodes]."""
    return moments(space.grid.basis.forward(part.double().reshape(-1, *space.shape)) for part in parts)[1]


def filled(count: int, parts: Iterable[Tensor]) -> Tensor:
    """The rows of all parts, `count` together, without having them in memory twice."""
    whole, place = torch.empty(0), 0
    for part in parts:
        whole = whole if place else part.new_empty((count, *part.shape[1:]))
        whole[place : place + len(part)] = part
        place += len(part)
    return whole


def prior_job(study: Study, problem: str, model: ModelId, device: torch.device, ranks: Ranks) -> Job:
    """Training of a coefficient prior on all coefficients, or of a joint prior on the pairs of a percent; on relaxed fields.

    The spectrum is that of the fields on all their nodes, on whichever of them the network is trained.
    """
    made = study.make_problem(problem)
    spaces = dict(zip(FIELDS, made.spaces(study.data.resolution), strict=True))
    alone = not model.percent
    rows = np.arange(study.data.train) if alone else training_share(study, model.percent)
    held_out = np.arange(study.data.validation) if alone else validation_share(study, model.percent)
    kinds = {"coefficient": "free"} if alone else {"coefficient": "free", "solution": "solution"}
    scales = {name: scale(study, problem, kind, rows) for name, kind in kinds.items()}
    resolution = study.training_resolution(model)
    grid = made.coefficient_space(resolution).grid

    def stacked(pairs: PairsFile, which: np.ndarray) -> Iterator[Tensor]:
        for block in pairs.blocks(which, list(scales)):
            fields = dict(zip(scales, map(torch.from_numpy, block), strict=True))
            fields["coefficient"] = made.relax(fields["coefficient"])
            parts = [spaces[name].channelled(own.normalise(fields[name])) for name, own in scales.items()]
            yield torch.cat(parts, dim=1).float()

    def on_grid(pairs: PairsFile, which: np.ndarray, grid: Grid = grid) -> Iterator[Tensor]:
        return (restricted(part, grid) for part in stacked(pairs, which))

    def noise_on(grid: Grid) -> Noise:
        return noise_of(study.noise_of(model), grid.basis, model.white)

    settings, training = study.prior_section(model), study.training(model)
    network, average = (untrained(study, problem, model, scales).to(device) for _ in range(2))
    accelerate(network.get_submodule("backbone"), training)
    with open_split(study, problem, "train") as train, open_split(study, problem, "validation") as validation:
        data, held = (
            filled(len(which), (part.to(device) for part in on_grid(pairs, which)))
            for pairs, which in ((train, rows), (validation, held_out))
        )
        spectrum = spectrum_of(spaces["coefficient"], stacked(train, rows)) if alone else None
        with told(f"{study.section_name(model)}."):
            settings.fit(network, partial(on_grid, train, rows), noise_on)
    noise = noise_on(grid)
    moved = settings.moved(symmetries_of(made, pairs=not alone), study.seed)
    loss = settings.training_loss(network, data, noise, study.seed, ranks.places(training.batch).start, moved)
    validate = settings.validation_loss(held, noise, study.seed)
    trainer = Trainer(network, loss, validate, len(rows), training, study.seed, average, ranks)
    sizes = {"training_fields": len(rows), "validation_fields": min(len(held_out), noisy.VALIDATION_DRAWS)}
    return Job(trainer, scales, sizes, spectrum)


def operator_job(study: Study, problem: str, model: ModelId, device: torch.device, ranks: Ranks) -> Job:
    """Training of an operator on the pairs of a percent. The coefficient is normalised with all (unpaired) coefficients."""
    rows, held_out = training_share(study, model.percent), validation_share(study, model.percent)
    made = study.make_problem(problem)
    scales = {"coefficient": scale(study, problem, "coefficient"), "solution": scale(study, problem, "solution", rows)}
    grids = dict(zip(FIELDS, (space.grid for space in made.spaces(study.training_resolution(model))), strict=True))

    def normalised(pairs: PairsFile, name: str, which: np.ndarray) -> Tensor:
        parts = (scales[name].normalise(torch.from_numpy(block)) for (block,) in pairs.blocks(which, [name]))
        return filled(len(which), (restricted(part, grids[name]).to(device) for part in parts))

    settings, training = study.operator_section(model), study.training(model)
    with open_split(study, problem, "train") as train, open_split(study, problem, "validation") as validation:
        a, u = (normalised(train, name, rows) for name in FIELDS)
        held_a, held_u = (normalised(validation, name, held_out) for name in FIELDS)
        unpaired = normalised(train, "coefficient", np.arange(study.data.train)) if settings.physics else a
    spaces, places = made.spaces(study.data.resolution), ranks.places(training.batch)
    network, average = (NeuralOperator(settings.network, spaces, *scales.values()).to(device) for _ in range(2))
    accelerate(network.network, training)
    loss = settings.training_loss(network, (a, u), unpaired, made, study.seed, training.batch, places)
    validate = regression.validation_loss(held_a, held_u)
    trainer = Trainer(network, loss, validate, len(rows), training, study.seed, average, ranks)
    sizes = {"training_fields": len(rows), "validation_fields": len(held_out)}
    return Job(trainer, scales, sizes)


def prior_quality(study: Study, problem: str, denoiser: nn.Module, job: Job) -> list[dict[str, float]]:
    """`denoising.quality` on validation coefficients, with the problem's own spectrum, or else the empirical one."""
    made, normalisation = study.make_problem(problem), job.normalisation["coefficient"]
    spectrum = made.prior_spectrum(study.data.resolution)
    spectrum = job.spectrum if spectrum is None else spectrum * (1 / normalisation.unit) ** 2
    assert spectrum is not None
    fields = made.relax(torch.from_numpy(load_pairs(study, problem, "validation").coefficient[:256]))
    data = made.coefficient_space(study.data.resolution).channelled(normalisation.normalise(fields))
    data = data.to(next(denoiser.parameters()).device)
    basis, noise = diffusion_noise(study, problem, ModelId("prior"), study.data.resolution)
    return denoising.quality(denoiser, data, spectrum, basis, noise, study.seed)
