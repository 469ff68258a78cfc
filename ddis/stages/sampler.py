"""A run made ready: what its test fields look like to it, its networks, and the samples it draws of them, batch by batch.

Batches lie in a work folder until all are there: a run goes on after the last finished one, and several jobs can share it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddis.config import Case, Study
from ddis.fields.noise import Noise
from ddis.models.checkpoint import load_unfinished, save_tensors
from ddis.models.ids import OPERATOR
from ddis.models.normalisation import Normalisation
from ddis.observe.simulated import Simulated, simulated
from ddis.operators.base import Operator
from ddis.operators.corrected import Corrected
from ddis.operators.solver import Solver
from ddis.pde.base import Problem
from ddis.posterior import Posterior, mean_unit, spaces_of
from ddis.priors import Prior, gaussian, mixture
from ddis.priors.gaussian import of_parts
from ddis.progress import Progress
from ddis.provenance import device_name, file_digest, peak_memory_mb
from ddis.randomness import generator
from ddis.sampling.base import Batch, Cost, Method, RunSettings, State, last_state
from ddis.sampling.methods import load_method
from ddis.stages.common import fingerprint, load_pairs, open_split, resolve_device, training_normalisation
from ddis.stages.layout import model_folder
from ddis.trained import load_network, noise_of

SPLIT_STREAM = {"test": 0, "validation": 1}


@dataclass
class Result:
    """Physical samples [n, K, *shape], closed-form moments [n, *shape] or None, and what they cost.

    Evaluations are per sample of one field; solver_calls: of the solver that corrects an operator; None: nothing does. seconds,
    peak_memory_mb and devices are those of all processes that drew a batch.
    """

    coefficient: np.ndarray
    mean: np.ndarray | None
    std: np.ndarray | None
    prior_evaluations: float
    operator_evaluations: float
    solver_calls: float | None
    seconds: float
    peak_memory_mb: float
    devices: str


def observe(study: Study, case: Case, split: str, fields: np.ndarray) -> Simulated:
    """What an observation shows of the given fields of a split; places and noise depend on (seed, split, field) alone."""
    pairs, placed = load_pairs(study, case.problem, split), study.placed(case.problem, case.observation)
    seen = {"solution", *(part.of for part in placed.sensors.parts)}
    scales = {name: training_normalisation(study, case.problem, name) for name in seen}
    stds: dict[str, np.ndarray] = {name: np.ravel(scale.std) for name, scale in scales.items()}
    streams = [(SPLIT_STREAM[split] << 40) + int(f) for f in fields]
    truth = pairs.coefficient[fields], pairs.solution[fields]
    return simulated(placed, *truth, stds, mean_unit(scales["solution"]), study.seed, streams)


@dataclass(frozen=True)
class Parts:
    """What a run draws with: problem, method, prior and operator."""

    problem: Problem
    method: Method[Any]
    prior: Prior
    operator: Operator
    device: torch.device


def fitted(study: Study, name: str, problem: Problem, coefficient: Normalisation, noise: Noise) -> Prior:
    """The Gaussian with mean and spectrum of the training coefficients."""
    with open_split(study, name, "train") as pairs:
        blocks = partial(pairs.blocks, names=["coefficient"])
        return of_parts(problem, lambda: (torch.from_numpy(block) for (block,) in blocks()), coefficient, noise)


def parts_of(study: Study, name: str, settings: RunSettings, percent: str) -> Parts:
    """The parts of a run on the problem `name`, its networks from the study's files. Raises InputError."""
    device, problem, method = resolve_device(study.device), study.make_problem(name), load_method(settings.method)(settings)
    spaces = spaces_of(problem)
    modes = spaces[0].grid.basis
    needed = [load_network(study, name, model, device) for model in study.models_for(settings, percent)]
    models = {trained.model.part: trained for trained in needed}
    network = models.pop(OPERATOR, None)
    noise = noise_of(study.noise, modes, method.noise == "white")
    if models:
        [trained] = models.values()
        prior = trained.as_prior()
    else:
        coefficient = training_normalisation(study, name, "free").without_mean
        if method.closed_form:
            prior = (gaussian if problem.is_gaussian else mixture)(problem, noise, coefficient)
        else:
            prior = fitted(study, name, problem, coefficient, noise)
    operator: Operator
    if network is None:
        operator = Solver(problem, prior.solution or training_normalisation(study, name, "solution").without_mean)
    else:
        operator = network.as_operator()
        if settings.operator == "corrected":
            operator = Corrected(operator, Solver(problem, operator.solution))
    return Parts(problem, method, prior, operator, device)


class Sampler:
    """A run made ready, for any fields of its problem."""

    def __init__(self, study: Study, case: Case, settings: RunSettings):
        self.study, self.case, self.settings = study, case, settings
        self.parts = parts_of(study, case.problem, settings, case.percent)
        self.method = self.parts.method

    def posterior(self, observed: Simulated) -> Posterior:
        """That of all observed fields."""
        return Posterior(
            self.parts.problem,
            self.parts.prior,
            self.parts.operator,
            observed.placed.sensors,
            observed.values,
            chosen=observed.index,
            variance=observed.variance,
            seed=self.study.seed,
            device=self.parts.device,
        )

    def work_folder(self, stage: str, digest: str) -> Path:
        """Where finished batches lie until the file is whole; named by all that they were made from, weights included."""
        case = self.case
        names = self.study.models_for(self.settings, case.percent)
        weights = [model_folder(self.study, case.problem, name) / "weights.safetensors" for name in names]
        mark = fingerprint(self.study, case.problem, stage, digest + "".join(map(file_digest, weights)))
        return self.study.folder / "work" / case.problem / f"{stage}-{case.observation}-{case.run}-{case.percent}-{mark}"

    def draw(
        self,
        observed: Simulated,
        split: str,
        work: Path,
        fields: range,
        each_step: Callable[[int, State], None] | None = None,
    ) -> None:
        """Draws K samples of each of `fields`, whole batches, into `work`; batches that are there are not drawn again.

        `observed` holds all fields of the run, so that the samples do not depend on which of them are drawn together here.
        """
        n, k, step = len(observed.coefficient), self.settings.samples, self.settings.fields_per_batch
        missing = [start for start in fields[::step] if not batch_path(work, start).exists()]
        if not missing:
            return
        begin, posterior = time.perf_counter(), self.posterior(observed)
        prepared, cost = posterior.prepare(self.method)
        label = f"{self.case.problem} {self.case.run}-{self.case.percent}"
        progress = Progress(label, len(fields) * k, (len(fields[::step]) - len(missing)) * step * k, unit="samples")
        for number, start in enumerate(missing, len(fields[::step]) - len(missing)):
            numbers = slice(start, min(start + step, n))
            generators = [self._generator(split, field, sample) for field in range(n)[numbers] for sample in range(k)]
            # Every job prepares the run, and one alone counts its evaluations: that of the first batch.
            counted = cost if start == 0 else Cost()
            batches = [posterior.batch(self.method, numbers, part, counted) for part in self.method.together(generators)]

            def each(state: State, before: int, chains: int, done: int = number * step, start: int = start) -> None:
                progress.update(done * k + before + chains * state.step // state.steps)
                if each_step is not None:
                    each_step(start * k + before, state)

            self._draw_batch(posterior, batches, prepared, batch_path(work, start), begin, each)
            begin = time.perf_counter()
        progress.finish()

    def collect(self, observed: Simulated, work: Path) -> Result:
        """The samples of all fields from their batches, and what those cost. Raises InputError for a missing or damaged batch."""
        n, k = len(observed.coefficient), self.settings.samples
        batches = [load_unfinished(batch_path(work, start)) for start in range(0, n, self.settings.fields_per_batch)]
        tensors = {name: torch.cat([b[0][name] for b in batches]).numpy() for name in batches[0][0]}
        total = {key: sum(b[1].get(key, 0) for b in batches) for key in ("prior", "operator", "solver", "seconds")}
        return Result(
            coefficient=tensors["x0"].reshape(n, k, *tensors["x0"].shape[1:]),
            mean=tensors.get("mean"),
            std=tensors.get("std"),
            prior_evaluations=total["prior"] / (n * k),
            operator_evaluations=total["operator"] / (n * k),
            solver_calls=total["solver"] / (n * k) if isinstance(self.parts.operator, Corrected) else None,
            seconds=total["seconds"],
            peak_memory_mb=max(b[1]["peak_memory_mb"] for b in batches),
            devices=", ".join(sorted({b[1]["device"] for b in batches})),
        )

    def _generator(self, split: str, field: int, sample: int) -> np.random.Generator:
        name = f"sample {self.case.problem} {self.case.observation} {self.case.run}"
        return generator(self.study.seed, name, SPLIT_STREAM[split], field, sample)

    def _draw_batch(
        self,
        posterior: Posterior,
        batches: Sequence[Batch],
        prepared: Any,
        path: Path,
        begin: float,
        each_step: Callable[[State, int, int], None],
    ) -> None:
        """The file of some fields from the parts of their chains; each_step: with the chains before, and of, the part."""
        states, done, watched = [], 0, 0.0
        for batch in batches:
            state, chains = None, len(batch.generators)
            for state in self.method.sample(batch, prepared):
                paused = time.perf_counter()
                each_step(state, done, chains)
                watched += time.perf_counter() - paused
            states.append(last_state(state, batch, self.method.settings.method))
            done += chains
        tensors = {"x0": posterior.physical(torch.cat([state.x0 for state in states]))}
        closed = posterior.closed_form(states[0].mean, states[0].std)
        if closed is not None:
            tensors |= dict(zip(("mean", "std"), closed, strict=True))
        if posterior.device.type == "cuda":
            torch.cuda.synchronize()
        cost = {**vars(batches[0].cost), "seconds": time.perf_counter() - begin - watched}
        save_tensors(path, tensors, {**cost, "peak_memory_mb": peak_memory_mb(), "device": device_name(str(posterior.device))})


def batch_path(work: Path, start: int) -> Path:
    """File of the batch that begins with field `start`."""
    return work / f"{start}.safetensors"
