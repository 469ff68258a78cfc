"""Stage `train`: a prior, a joint prior or an operator; resumes from its checkpoint, and writes it when a signal comes.

Under torchrun several processes share the steps; the first of them writes all files and is the one that tracking sees.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddis.config import Study
from ddis.data.store import FIELDS, Pairs
from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise
from ddis.files import write_csv, write_json
from ddis.grid import Space
from ddis.models.checkpoint import load_unfinished, save_tensors
from ddis.models.denoiser import GaussianDenoiser
from ddis.models.ids import OPERATOR, ModelId
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.operators.error import operator_error_model
from ddis.progress import Progress
from ddis.randomness import generator
from ddis.signals import Stopped, StopRequest
from ddis.stages.common import fingerprint, load_pairs, resolve_device, settle, stage, training_share, validation_share
from ddis.stages.layout import data_path, model_folder
from ddis.tracking import Shapes, StageRun
from ddis.trained import noise_of, untrained
from ddis.training import denoising, physics, regression
from ddis.training.acceleration import accelerate
from ddis.training.distributed import Loss, Ranks, processes
from ddis.training.loop import Record, Trainer

SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclasses.dataclass
class Job:
    """A training, and what is written of its result beside the weights."""

    trainer: Trainer
    normalisation: dict[str, Normalisation]
    sizes: dict[str, int]
    spectrum: Tensor | None = None


def run(study: Study, problem: str, model: str) -> None:
    """Writes models/<problem>/<model>/{weights.safetensors, model.json, history.csv} (and denoising.csv of a prior)."""
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
        path, digest = data_path(study, problem, "train"), load_pairs(study, problem, "train").attributes["digest"]
        tracker.dataset(f"{problem} {named.percent or 100} %", path, digest, **job.sizes, resolution=study.data.resolution)
        checkpoint = train_to_end(study, problem, model, job, tracker)
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
        }
        best = job.trainer.average
        best.load_state_dict(job.trainer.best)
        if isinstance(best, NeuralOperator):
            information |= operator_error(study, problem, named.percent, best)
        else:
            information["spectrum"] = None if job.spectrum is None else job.spectrum.tolist()
        if named.part == "prior":
            rows = prior_quality(study, problem, best, job)
            write_csv(folder / "denoising.csv", rows, list(rows[0]))
            tracker.artifact(folder / "denoising.csv")
        columns = [f.name for f in dataclasses.fields(Record)]
        write_csv(folder / "history.csv", job.trainer.progress.history, columns)
        write_json(folder / "model.json", {**information, "provenance": record})
        save_tensors(folder / "weights.safetensors", job.trainer.best, {"configuration": digest, "model": model})
        for name in ("history.csv", "model.json"):
            tracker.artifact(folder / name)
        tracker.network(folder, *signature(study, problem, named))
        checkpoint.unlink(missing_ok=True)


def signature(study: Study, problem: str, model: ModelId) -> tuple[Shapes, Shapes]:
    """Shapes of what a network takes and gives, by name, as `ddis.stages.pyfunc` loads it."""
    coefficient, solution = study.make_problem(problem).spaces(study.data.resolution)
    if model.part == OPERATOR:
        return {"coefficient": (-1, *coefficient.shape)}, {"solution": (-1, *solution.shape)}
    channels = coefficient.channels + (solution.channels if model.percent else 0)
    fields = (-1, channels, *coefficient.grid.shape)
    return {"x_t": fields, "sigma": (-1,)}, {"x0_hat": fields}


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
        for record in trainer.run(request.received):
            if tracker is None:
                continue
            progress.update(record.step, loss=record.train_loss, validation=trainer.progress.best_loss)
            if record.validation_loss is not None:
                values = {"train_loss": record.train_loss, "validation_loss": record.validation_loss}
                tracker.metrics({**values, "learning_rate": record.learning_rate}, step=record.step)
            if trainer.stopped or time.monotonic() - saved > study.checkpoint_seconds:
                saved = save()
        if trainer.stopped:
            raise Stopped(trainer.progress.step, trainer.stopped)
    if tracker is not None:
        progress.finish()
    return checkpoint


def diffusion_noise(study: Study, problem: str, model: ModelId) -> tuple[Basis, Noise]:
    """The problem's basis, and the diffusion noise of a prior on its grid."""
    modes = study.make_problem(problem).coefficient_space(study.data.resolution).grid.basis
    return modes, noise_of(study.noise, modes, model.white)


def prior_job(study: Study, problem: str, model: ModelId, device: torch.device, ranks: Ranks) -> Job:
    """Training of a coefficient prior on all coefficients, or of a joint prior on the pairs of a percent; on relaxed fields."""
    made = study.make_problem(problem)
    train, validation = load_pairs(study, problem, "train"), load_pairs(study, problem, "validation")
    spaces = dict(zip(FIELDS, made.spaces(study.data.resolution), strict=True))
    alone = not model.percent
    names = FIELDS[:1] if alone else FIELDS
    rows = np.arange(study.data.train) if alone else training_share(study, model.percent)
    held_out = np.arange(study.data.validation) if alone else validation_share(study, model.percent)

    def fields(pairs: Pairs, name: str, which: np.ndarray) -> Tensor:
        values = torch.from_numpy(getattr(pairs, name)[which])
        return made.relax(values) if name == "coefficient" else values

    normalisation = {
        name: normalisation_of(fields(train, name, rows).numpy(), f"{problem} {name}", spaces[name]) for name in names
    }

    def stacked(pairs: Pairs, which: np.ndarray) -> Tensor:
        parts = {name: normalisation[name].normalise(fields(pairs, name, which)) for name in names}
        return torch.cat([spaces[name].channelled(part) for name, part in parts.items()], dim=1).float().to(device)

    data, held = stacked(train, rows), stacked(validation, held_out)
    modes, noise = diffusion_noise(study, problem, model)
    settings, training = study.prior_section(model), study.training(model)
    network, average = (untrained(study, problem, model, normalisation).to(device) for _ in range(2))
    accelerate(network.get_submodule("backbone"), training)
    trainer = Trainer(
        network,
        settings.training_loss(network, data, noise, study.seed, ranks.places(training.batch).start),
        settings.validation_loss(held, noise, study.seed),
        len(rows),
        training,
        study.seed,
        average,
        ranks,
    )
    free = data.cpu().double().reshape(-1, *spaces["coefficient"].shape)
    spectrum = modes.forward(free).var(dim=0) if alone else None
    sizes = {"training_fields": len(rows), "validation_fields": min(len(held_out), denoising.VALIDATION_DRAWS)}
    return Job(trainer, normalisation, sizes, spectrum)


def operator_job(study: Study, problem: str, model: ModelId, device: torch.device, ranks: Ranks) -> Job:
    """Training of an operator on the pairs of a percent. The coefficient is normalised with all (unpaired) coefficients."""
    train, validation = load_pairs(study, problem, "train"), load_pairs(study, problem, "validation")
    rows, held_out = training_share(study, model.percent), validation_share(study, model.percent)
    spaces = study.make_problem(problem).spaces(study.data.resolution)
    coefficient = normalisation_of(train.coefficient, f"{problem} coefficient", spaces[0])
    solution = normalisation_of(train.solution[rows], f"{problem} solution", spaces[1])

    def normalised(pairs: Pairs, which: np.ndarray) -> tuple[Tensor, Tensor]:
        a, u = torch.from_numpy(pairs.coefficient[which]), torch.from_numpy(pairs.solution[which])
        return coefficient.normalise(a).to(device), solution.normalise(u).to(device)

    settings, training = study.operator_section(model), study.training(model)
    network, average = (NeuralOperator(settings.network, spaces, coefficient, solution).to(device) for _ in range(2))
    accelerate(network.network, training)
    coefficients = coefficient.normalise(torch.from_numpy(train.coefficient)).to(device) if settings.physics else None
    places = ranks.places(training.batch)
    trainer = Trainer(
        network,
        operator_loss(study, problem, model, network, normalised(train, rows), coefficients, training.batch, places),
        regression.validation_loss(*normalised(validation, held_out)),
        len(rows),
        training,
        study.seed,
        average,
        ranks,
    )
    sizes = {"training_fields": len(rows), "validation_fields": len(held_out)}
    return Job(trainer, {"coefficient": coefficient, "solution": solution}, sizes)


def operator_loss(
    study: Study,
    problem: str,
    model: ModelId,
    network: NeuralOperator,
    pairs: tuple[Tensor, Tensor],
    coefficients: Tensor | None,
    batch: int,
    places: slice = slice(None),
) -> Loss:
    """The loss of an operator's training on normalised pairs, and on other coefficients where its settings say so."""
    settings = study.operator_section(model).physics
    if settings is None or coefficients is None:
        return regression.training_loss(network, *pairs)
    made = study.make_problem(problem)
    equation = physics.Equation(made, made.solution_space(study.data.resolution).grid, settings)
    return physics.training_loss(network, pairs, coefficients, equation, study.seed, batch, places)


def normalisation_of(fields: np.ndarray, name: str, space: Space) -> Normalisation:
    try:
        return Normalisation.of(fields, space)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def operator_error(study: Study, problem: str, percent: str, operator: NeuralOperator) -> dict[str, Any]:
    """The operator's own error on the held-out pairs of its share: relative, variance per node, and `operator_error_model`."""
    validation, rows = load_pairs(study, problem, "validation"), validation_share(study, percent)
    device = next(operator.parameters()).device
    a = operator.coefficient.normalise(torch.from_numpy(validation.coefficient[rows])).to(device)
    u = operator.solution.normalise(torch.from_numpy(validation.solution[rows])).to(device)
    errors, u = regression.prediction_errors(operator, a, u).cpu(), u.cpu()
    modes = study.make_problem(problem).solution_space(study.data.resolution).grid.basis
    gain, spectrum = operator_error_model(u + errors, u, modes)
    return {
        "relative_error": float((errors.flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)).mean()),
        "error_variance": float((errors**2).mean()),
        "error_gain": gain.tolist(),
        "error_spectrum": spectrum.tolist(),
    }


def prior_quality(study: Study, problem: str, denoiser: nn.Module, job: Job) -> list[dict[str, float]]:
    """Mean squared error per node of the trained denoiser and of the optimal one, per noise level, on validation coefficients.

    The optimal denoiser is that of a Gaussian with the problem's own spectrum, or with the empirical one if the problem has no
    closed form (then it is the best linear denoiser).
    """
    made, normalisation = study.make_problem(problem), job.normalisation["coefficient"]
    modes, noise = diffusion_noise(study, problem, ModelId("prior"))
    spectrum = made.prior_spectrum(study.data.resolution)
    spectrum = job.spectrum if spectrum is None else spectrum * (1 / normalisation.unit) ** 2
    assert spectrum is not None
    optimal = GaussianDenoiser(modes, spectrum, noise.spectrum(modes))
    device = next(denoiser.parameters()).device
    fields = made.relax(torch.from_numpy(load_pairs(study, problem, "validation").coefficient[:256]))
    data = made.coefficient_space(study.data.resolution).channelled(normalisation.normalise(fields)).to(device)
    errors = denoising.denoising_errors([denoiser, optimal], data, noise, SIGMAS, study.seed)
    return [
        {"sigma": s, "error": float(own), "optimal_error": float(best), "excess": float(own / best - 1)}
        for s, (own, best) in zip(SIGMAS, errors, strict=True)
    ]
