"""Stage `sample`: posterior samples of one run; resumes after the last finished batch of fields.

Batches lie in a work folder until all are there; stage `draw` draws those of one shard, so that several jobs can share a run.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddis.config import Case, Study
from ddis.data.normalisation import SIGMA_DATA, Normalisation
from ddis.data.store import PAIRS, Pairs, Samples, blocks, read_attributes, write_samples
from ddis.errors import InputError
from ddis.evaluation.metrics import failed_fields, relative_l2
from ddis.fields.bases import basis
from ddis.fields.noise import WhiteNoise, make_noise
from ddis.models.checkpoint import load_tensors, save_tensors
from ddis.pde.base import Problem
from ddis.progress import Progress
from ddis.provenance import device_name, file_digest, peak_memory_mb
from ddis.randomness import generator
from ddis.sampling.base import Cost, Method, RunSettings, State, Task
from ddis.sampling.methods import load_method
from ddis.sampling.observation import Observation, draw_nodes, error_covariance, error_growth
from ddis.stages.common import fingerprint, load_pairs, resolve_device, stage, training_share
from ddis.stages.layout import data_path, model_folder, samples_path
from ddis.stages.networks import Trained, load_network
from ddis.tracking import StageRun

_log = logging.getLogger(__name__)

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


def run(study: Study, problem: str, observation: str, run: str, percent: str) -> None:
    """Writes samples/<problem>/<observation>/<run>-<percent>.h5."""
    case = Case(problem, observation, run, percent)
    settings = study.run_for(case)
    with stage(study, "sample", **vars(case)) as (tracker, record):
        digest = study.digest("sample", **vars(case))
        observed = observe(study, case, "test", np.arange(study.data.test))
        sampler = Sampler(study, case, settings)
        work = sampler.work_folder("sample", digest)
        tracker.tag("ddis.data_digest", read_attributes(data_path(study, problem, "test"), PAIRS)["digest"])
        sampler.draw(observed, "test", work, range(study.data.test), log_sigma(tracker))
        result = sampler.collect(observed, work)
        samples = assemble(study, case, settings, sampler, observed, result)
        samples.attributes |= {"configuration": digest, "provenance": record}
        path = samples_path(study, **vars(case))
        write_samples(path, samples)
        failed = report_failures(f"{problem} {observation} {run}-{percent}", result.coefficient, samples.solution)
        errors = 100 * relative_l2(result.coefficient, observed.coefficient[:, None])[~failed]
        seconds = samples.attributes["seconds_per_sample"]
        means = {"l2_sample": float(errors.mean())} if errors.size else {}
        tracker.metrics({**means, "n_failed": int(failed.sum()), "seconds_per_sample": seconds})
        tracker.artifact(path)
        shutil.rmtree(work, ignore_errors=True)


def report_failures(label: str, *arrays: np.ndarray | None) -> np.ndarray:
    """Which test fields have a value that is not finite, bool [n]; a warning names them."""
    failed = failed_fields(*(array for array in arrays if array is not None))
    if failed.any():
        numbers = ", ".join(map(str, np.flatnonzero(failed)))
        text = "%s: %d of %d test fields are not finite and count as failed: %s"
        _log.warning(text, label, failed.sum(), len(failed), numbers)
    return failed


def run_shard(study: Study, case: Case, shard: str) -> None:
    """Draws the batches of one shard into the work folder, from where `run` takes them."""
    with stage(study, "draw", **vars(case), shard=shard) as (tracker, _):
        observed = observe(study, case, "test", np.arange(study.data.test))
        sampler = Sampler(study, case, study.run_for(case))
        work = sampler.work_folder("sample", study.digest("sample", **vars(case)))
        sampler.draw(observed, "test", work, study.shards_of(case)[int(shard)], log_sigma(tracker))


def log_sigma(tracker: StageRun) -> Callable[[int, State], None]:
    """What `Sampler.draw` calls after each step."""

    def each_step(fields_done: int, state: State) -> None:
        tracker.metrics({"sigma": state.sigma}, step=fields_done * state.steps + state.step)

    return each_step


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


def solve_or_nan(problem: Problem, coefficient: Tensor) -> Tensor:
    """Solutions [B, S, S]; NaN for coefficients that the solver refuses: a chain that diverges must not end the others."""
    try:
        return problem.solve(coefficient)
    except InputError:
        if len(coefficient) == 1:
            return coefficient * math.nan
        return torch.cat([solve_or_nan(problem, field) for field in coefficient.split(1)])


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
        """Normalised solution of the normalised coefficient, by the trained operator or the solver."""
        a = self.physical(x)
        return self.solution.normalise(self.operator.network(a) if self.operator else solve_or_nan(self.problem, a))

    def physical(self, x: Tensor) -> Tensor:
        """The coefficient a = P(b) of the normalised free field x [..., S, S] (see Problem)."""
        return self.problem.constrain(self.coefficient.restore(x))

    def _residual(self, x: Tensor) -> Tensor:
        """Residual of the equation in units of std(a), for normalised (coefficient, solution) [B, 2, S, S]."""
        a, u = self.physical(x[:, 0]), self.solution.restore(x[:, 1])
        return self.problem.residual(a, u) / self.coefficient.std

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
        batches = [load_tensors(batch_path(work, start)) for start in range(0, n, self.settings.fields_per_batch)]
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
        state = None
        for state in self.method.sample(task):
            each_step(state)
        assert state is not None
        scale = self.coefficient.std / SIGMA_DATA
        tensors = {"x0": self.physical(state.x0)}
        if state.mean is not None and state.std is not None:
            # Where a closed form exists, P is a mask of nodes: it acts on a standard deviation as on a field.
            tensors |= {"mean": self.physical(state.mean), "std": self.problem.constrain(state.std * scale)}
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        cost = {"prior": task.cost.prior, "operator": task.cost.operator, "seconds": time.perf_counter() - begin}
        save_tensors(path, tensors, {**cost, "peak_memory_mb": peak_memory_mb(), "device": device_name(str(self.device))})


def batch_path(work: Path, start: int) -> Path:
    """File of the batch that begins with field `start`."""
    return work / f"{start}.safetensors"


def assemble(study: Study, case: Case, settings: RunSettings, sampler: Sampler, observed: Observed, result: Result) -> Samples:
    """The samples file's content: what was drawn, from what, and at what cost."""
    n, k = result.coefficient.shape[:2]
    mask, observation = observed.picture()
    own_mean = result.coefficient.mean(axis=1)
    own_std = result.coefficient.std(axis=1, ddof=1) if k > 1 else np.full_like(own_mean, np.nan)
    with torch.no_grad():
        flat = torch.from_numpy(result.coefficient.reshape(n * k, *own_mean.shape[1:]))
        solution = solve_or_nan(sampler.problem, flat).numpy().reshape(result.coefficient.shape)
    method = sampler.method
    operator = study.operator_of(case.run)
    attributes: dict[str, Any] = {
        "problem": case.problem,
        "pde": study.problems[case.problem].pde,
        "run": case.run,
        "method": settings.method,
        "operator": operator,
        "percent": float(case.percent),
        "pairs": len(training_share(study, case.percent)) if method.prior == "joint" or operator == "fno" else None,
        "observation": case.observation,
        "noise": study.observations[case.observation].noise,
        "solution_std": observed.scale,
        "seed": study.seed,
        "prior_evaluations": result.prior_evaluations,
        "operator_evaluations": result.operator_evaluations,
        "seconds_per_field": result.seconds / n,
        "seconds_per_sample": result.seconds / (n * k),
        "peak_memory_mb": max(result.peak_memory_mb, peak_memory_mb()),
        "device": result.devices,
    }
    return Samples(
        coefficient=result.coefficient,
        mean=own_mean if result.mean is None else result.mean,
        std=own_std if result.std is None else result.std,
        coefficient_true=observed.coefficient,
        solution_true=observed.solution,
        mask=mask,
        observation=observation,
        solution=solution,
        attributes=attributes,
    )
