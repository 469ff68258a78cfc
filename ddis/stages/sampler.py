"""A run made ready: what its test fields look like to it, its networks, and the samples it draws of them, batch by batch.

Batches lie in a work folder until all are there: a run goes on after the last finished one, and several jobs can share it.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddis.config import Case, Study
from ddis.data.normalisation import SIGMA_DATA, Normalisation
from ddis.data.store import Pairs, blocks
from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.fields.noise import WhiteNoise, make_noise
from ddis.models.checkpoint import load_unfinished, save_tensors
from ddis.pde.base import Problem
from ddis.progress import Progress
from ddis.provenance import device_name, file_digest, peak_memory_mb
from ddis.randomness import generator
from ddis.sampling.base import Cost, Method, RunSettings, State, Task
from ddis.sampling.methods import load_method
from ddis.sampling.observation import Observation, draw_nodes, error_covariance, error_growth
from ddis.stages.common import fingerprint, load_pairs, resolve_device
from ddis.stages.layout import model_folder
from ddis.stages.networks import Trained, load_network

NOISELESS_VARIANCE = 1e-6  # of var(u): the floor of R, for studies without noise too
SPLIT_STREAM = {"test": 0, "validation": 1}


@dataclass(frozen=True)
class Observed:
    """Truth and observation of n fields, in physical units: coefficient, solution [n, S, S]; index, values [n, m].

    variance: of the noise, at least the floor of R; scale: std(u) of the training split.
    """

    coefficient: np.ndarray
    solution: np.ndarray
    index: np.ndarray
    values: np.ndarray
    variance: float
    scale: float

    def picture(self) -> tuple[np.ndarray, np.ndarray]:
        """Mask and observation [n, S, S]; the observation is 0 where there is none."""
        mask = np.zeros(self.solution.shape, dtype=bool)
        values = np.zeros(self.solution.shape, dtype=np.float32)
        np.put_along_axis(mask.reshape(len(mask), -1), self.index, True, axis=1)
        np.put_along_axis(values.reshape(len(mask), -1), self.index, self.values, axis=1)
        return mask, values


@dataclass
class Result:
    """Physical samples [n, K, S, S], closed-form moments [n, S, S] or None, and what they cost.

    Evaluations are per sample of one field. seconds, peak_memory_mb and devices are those of all processes that drew a batch.
    """

    coefficient: np.ndarray
    mean: np.ndarray | None
    std: np.ndarray | None
    prior_evaluations: float
    operator_evaluations: float
    seconds: float
    peak_memory_mb: float
    devices: str


def observe(study: Study, case: Case, split: str, fields: np.ndarray) -> Observed:
    """Draws nodes and noise of the given fields of a split; both depend on (seed, split, field) alone."""
    settings, problem = study.observations[case.observation], study.make_problem(case.problem)
    pairs, train = load_pairs(study, case.problem, split), load_pairs(study, case.problem, "train")
    scale = float(train.solution.std(dtype=np.float64))
    size, seed, stream = study.data.resolution, study.seed, SPLIT_STREAM[split] << 40
    index = np.stack([draw_nodes(size, settings.count, seed, stream + int(f), problem.basis == "fourier") for f in fields])
    solution = pairs.solution[fields]
    values = np.take_along_axis(solution.reshape(len(fields), -1), index, axis=1)
    for row, f in zip(values, fields, strict=True):
        rng = generator(seed, "observation", stream + int(f))
        row += settings.noise * scale * rng.standard_normal(len(row), dtype=np.float32)
    variance = max(settings.noise**2, NOISELESS_VARIANCE) * scale**2
    return Observed(pairs.coefficient[fields], solution, index, values, variance, scale)


def or_nan(compute: Callable[..., Tensor], *fields: Tensor) -> Tensor:
    """compute(*fields) [B, S, S]; NaN where the problem refuses a field: a chain that diverges must not end the others."""
    try:
        return compute(*fields)
    except InputError:
        if len(fields[0]) == 1:
            return fields[0] * math.nan
        return torch.cat([or_nan(compute, *single) for single in zip(*(field.split(1) for field in fields), strict=True)])


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] over all rows of the parts [N, ...], float64, without having them in memory at once."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        count, total, squares = count + len(part), total + part.sum(dim=0), squares + part.square().sum(dim=0)
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0) * (count / max(1, count - 1))


class Sampler:
    """A run made ready: method, networks, normalisation and operator, for any fields of its problem."""

    def __init__(self, study: Study, case: Case, settings: RunSettings):
        self.study, self.case, self.settings = study, case, settings
        self.device = resolve_device(study.device)
        self.problem: Problem = study.make_problem(case.problem)
        self.method: Method = load_method(settings.method)(settings)
        self.basis = basis(self.problem.basis, study.data.resolution)
        names = study.models_of(case.run, case.percent)
        self.models = {name.partition("-")[0]: load_network(study, case.problem, name, self.device) for name in names}
        self.prior: Trained | None = self.models.get("prior") or self.models.get("joint")
        self.operator: Trained | None = self.models.get("operator")
        train = cache(partial(load_pairs, study, case.problem, "train"))  # trained networks hold what is needed of it
        self.coefficient, self.solution = self._normalisations(train)
        self.mean, self.spectrum = self._gaussian(train)

    def _normalisations(self, train: Callable[[], Pairs]) -> tuple[Normalisation, Normalisation]:
        """Of the prior and of the operator; without them the scales of the training split, with mean 0 as in the closed form."""

        def scale(fields: np.ndarray) -> Normalisation:
            return Normalisation(0.0, float(fields.std(dtype=np.float64)))

        coefficient = self.prior.coefficient if self.prior else None
        solution = (self.prior.solution if self.prior else None) or (self.operator.solution if self.operator else None)
        coefficient = coefficient or scale(self.problem.relax(torch.from_numpy(train().coefficient)).numpy())
        return coefficient, solution or scale(train().solution)

    def predict(self, x: Tensor) -> Tensor:
        """Normalised solution of the normalised coefficient, by the trained operator or the solver.

        Where the run takes the operator's error as a spectrum, its modes are multiplied by the gains that belong to it.
        """
        a = self.physical(x)
        u = self.solution.normalise(self.operator.network(a) if self.operator else or_nan(self.problem.solve, a))
        spectral = getattr(self.settings, "error_model", "none") == "spectral"
        gain = self.operator.error_gain if self.operator and spectral else None
        return u if gain is None else self.basis.inverse(gain.to(u) * self.basis.forward(u))

    def physical(self, x: Tensor) -> Tensor:
        """The coefficient a = P(b) of the normalised free field x [..., S, S] (see Problem)."""
        return self.problem.constrain(self.coefficient.restore(x))

    def _residual(self, x: Tensor) -> Tensor:
        """Residual of the equation in units of std(a), for normalised (coefficient, solution) [B, 2, S, S]."""
        a, u = self.physical(x[:, 0]), self.solution.restore(x[:, 1])
        return or_nan(self.problem.residual, a, u) / self.coefficient.std

    def _gaussian(self, train: Callable[[], Pairs]) -> tuple[Tensor, Tensor]:
        """Mean [S, S] of the normalised free field and variance [S, S] of its modes.

        Of the closed form for methods that need it; empirical, of all coefficients, for others without a prior. Methods with a
        coefficient prior get the spectrum that was stored with it, and a mean of 0, as do those with a joint prior, which see
        no unpaired coefficients.
        """
        zero = torch.zeros(self.basis.size, self.basis.size, dtype=torch.float64)
        if self.prior is not None:
            return zero, zero if self.prior.spectrum is None else self.prior.spectrum
        if not self.method.closed_form:
            parts = (torch.from_numpy(block).double() for block in blocks(train().coefficient))
            mean, variance = moments(self.basis.forward(self.coefficient.normalise(self.problem.relax(part))) for part in parts)
            return self.basis.inverse(mean), variance
        spectrum = self.problem.prior_spectrum(self.basis.size)
        assert spectrum is not None
        return zero, spectrum * (SIGMA_DATA / self.coefficient.std) ** 2

    def work_folder(self, stage: str, digest: str) -> Path:
        """Where finished batches lie until the file is whole; named by all that they were made from, weights included."""
        case = self.case
        names = self.study.models_of(case.run, case.percent)
        weights = [model_folder(self.study, case.problem, name) / "weights.safetensors" for name in names]
        mark = fingerprint(self.study, case.problem, stage, digest + "".join(map(file_digest, weights)), type(self.method))
        return self.study.folder / "work" / case.problem / f"{stage}-{case.observation}-{case.run}-{case.percent}-{mark}"

    def operator_error(self) -> tuple[float, Tensor | None]:
        """The operator's own error as the run takes it into account: variance at every node, and spectrum of an error field."""
        model = getattr(self.settings, "error_model", "none")
        if self.operator is None or model == "none":
            return 0.0, None
        if model == "white":
            return self.operator.information["error_variance"], None
        return 0.0, self.operator.error_spectrum

    def _observation(self, observed: Observed, start: int, stop: int) -> Observation:
        """Normalised observation of fields start to stop - 1, with its covariance R."""
        index = torch.from_numpy(observed.index[start:stop]).to(self.device)
        variance, spectrum = self.operator_error()
        variance = observed.variance * (SIGMA_DATA / self.solution.std) ** 2 + variance
        values = self.solution.normalise(torch.from_numpy(observed.values[start:stop]).double()).to(self.device)
        covariance = error_covariance(index, variance, self.basis, spectrum, error_growth(values))
        return Observation(index, values, covariance)

    def task(self, observation: Observation, generators: list[np.random.Generator]) -> Task:
        size, noise = self.study.data.resolution, self.study.noise
        white = self.method.noise == "white"
        return Task(
            problem=self.problem,
            observation=observation,
            generators=generators,
            basis=self.basis,
            noise=WhiteNoise() if white else make_noise(size, self.basis, **noise.model_dump()),
            operator=self.predict,
            residual=self._residual,
            spectrum=self.spectrum,
            mean=self.mean,
            prior=self.prior.network if self.prior else None,
            units=(self.coefficient.std / SIGMA_DATA, self.solution.std / SIGMA_DATA),
        )

    def draw(
        self,
        observed: Observed,
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
        begin, cost = time.perf_counter(), self._prepare(observed)
        label = f"{self.case.problem} {self.case.run}-{self.case.percent}"
        progress = Progress(label, len(fields) * k, (len(fields[::step]) - len(missing)) * step * k, unit="samples")
        for number, start in enumerate(missing, len(fields[::step]) - len(missing)):
            stop = min(start + step, n)
            generators = [self._generator(split, field, sample) for field in range(start, stop) for sample in range(k)]
            task = self.task(self._observation(observed, start, stop), generators)
            # An unsplit run prepares once: its evaluations go to the first batch. The time goes to whoever spends it.
            task.cost = cost if start == 0 else Cost()

            def each(state: State, done: int = number * step, start: int = start, chains: int = len(generators)) -> None:
                progress.update(done * k + chains * state.step // state.steps)
                if each_step is not None:
                    each_step(start * k, state)

            self._draw_batch(task, batch_path(work, start), begin, each)
            begin = time.perf_counter()
        progress.finish()

    def _prepare(self, observed: Observed) -> Cost:
        """Work shared by all batches, with all nodes at once and without R: it needs only to know which are observed."""
        index, nothing = torch.from_numpy(observed.index).to(self.device), torch.empty(0, device=self.device)
        task = self.task(Observation(index, nothing, nothing), [])
        self.count(task)
        self.method.prepare(task)
        return task.cost

    def collect(self, observed: Observed, work: Path) -> Result:
        """The samples of all fields from their batches, and what those cost. Raises InputError for a missing or damaged batch."""
        n, k = len(observed.coefficient), self.settings.samples
        batches = [load_unfinished(batch_path(work, start)) for start in range(0, n, self.settings.fields_per_batch)]
        tensors = {name: torch.cat([b[0][name] for b in batches]).numpy() for name in batches[0][0]}
        total = {key: sum(b[1][key] for b in batches) for key in ("prior", "operator", "seconds")}
        return Result(
            coefficient=tensors["x0"].reshape(n, k, *tensors["x0"].shape[1:]),
            mean=tensors.get("mean"),
            std=tensors.get("std"),
            prior_evaluations=total["prior"] / (n * k),
            operator_evaluations=total["operator"] / (n * k),
            seconds=total["seconds"],
            peak_memory_mb=max(b[1]["peak_memory_mb"] for b in batches),
            devices=", ".join(sorted({b[1]["device"] for b in batches})),
        )

    def _generator(self, split: str, field: int, sample: int) -> np.random.Generator:
        name = f"sample {self.case.problem} {self.case.observation} {self.case.run}"
        return generator(self.study.seed, name, SPLIT_STREAM[split], field, sample)

    def count(self, task: Task) -> None:
        task.operator = task.cost.count_operator(task.operator)
        if task.prior is not None:
            task.prior = task.cost.count_prior(task.prior)

    def _draw_batch(self, task: Task, path: Path, begin: float, each_step: Callable[[State], None]) -> None:
        self.count(task)
        state, watched = None, 0.0
        for state in self.method.sample(task):
            paused = time.perf_counter()
            each_step(state)
            watched += time.perf_counter() - paused
        assert state is not None
        scale = self.coefficient.std / SIGMA_DATA
        tensors = {"x0": self.physical(state.x0)}
        if state.mean is not None and state.std is not None:
            # Where a closed form exists, P is a mask of nodes: it acts on a standard deviation as on a field.
            tensors |= {"mean": self.physical(state.mean), "std": self.problem.constrain(state.std * scale)}
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        cost = {"prior": task.cost.prior, "operator": task.cost.operator, "seconds": time.perf_counter() - begin - watched}
        save_tensors(path, tensors, {**cost, "peak_memory_mb": peak_memory_mb(), "device": device_name(str(self.device))})


def batch_path(work: Path, start: int) -> Path:
    """File of the batch that begins with field `start`."""
    return work / f"{start}.safetensors"
