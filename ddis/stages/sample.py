"""Stage `sample`: posterior samples of one run; resumes after the last finished batch of fields."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddis.config import Case, Study
from ddis.data.normalisation import SIGMA_DATA, Normalisation
from ddis.data.store import PAIRS, Pairs, Samples, read_attributes, write_samples
from ddis.errors import InputError
from ddis.evaluation.metrics import relative_l2
from ddis.fields.bases import basis
from ddis.fields.noise import WhiteNoise, make_noise
from ddis.models.checkpoint import load_tensors, save_tensors
from ddis.pde.base import Problem
from ddis.progress import Progress
from ddis.provenance import file_digest, peak_memory_mb
from ddis.randomness import generator
from ddis.sampling.base import Method, RunSettings, State, Task
from ddis.sampling.methods import load_method
from ddis.sampling.observation import Observation, draw_nodes, error_covariance
from ddis.stages.common import fingerprint, load_pairs, resolve_device, stage, training_share
from ddis.stages.layout import data_path, model_folder, samples_path
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
    """Physical samples [n, K, S, S], closed-form moments [n, S, S] or None, and what they cost per sample of one field."""

    coefficient: np.ndarray
    mean: np.ndarray | None
    std: np.ndarray | None
    prior_evaluations: float
    operator_evaluations: float
    seconds: float


def run(study: Study, problem: str, observation: str, run: str, percent: str) -> None:
    """Writes samples/<problem>/<observation>/<run>-<percent>.h5."""
    case = Case(problem, observation, run, percent)
    settings = study.run_for(case)
    with stage(study, "sample", **vars(case)) as (tracker, record):
        digest = study.digest("sample", **vars(case))
        observed = observe(study, case, "test", np.arange(study.data.test))
        sampler = Sampler(study, case, settings)
        work = sampler.work_folder("sample", digest)

        def each_step(fields_done: int, state: State) -> None:
            tracker.metrics({"sigma": state.sigma}, step=fields_done * state.steps + state.step)

        tracker.tag("ddis.data_digest", read_attributes(data_path(study, problem, "test"), PAIRS)["digest"])
        result = sampler.draw(observed, "test", work, each_step)
        samples = assemble(study, case, settings, sampler, observed, result)
        samples.attributes |= {"configuration": digest, "device": record["device"], "provenance": record}
        path = samples_path(study, **vars(case))
        write_samples(path, samples)
        errors = relative_l2(result.coefficient, observed.coefficient[:, None])
        seconds = samples.attributes["seconds_per_sample"]
        tracker.metrics({"l2_sample": 100 * float(np.mean(errors)), "seconds_per_sample": seconds})
        tracker.artifact(path)
        shutil.rmtree(work, ignore_errors=True)


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
        self.coefficient, self.solution = self._normalisations(load_pairs(study, case.problem, "train"))

    def _normalisations(self, train: Pairs) -> tuple[Normalisation, Normalisation]:
        """Of the prior and of the operator; without them the scales of the training split, with mean 0 as in the closed form."""
        relaxed = self.problem.relax(torch.from_numpy(train.coefficient)).numpy()
        scales = [Normalisation(0.0, float(f.std(dtype=np.float64))) for f in (relaxed, train.solution)]
        coefficient = self.prior.coefficient if self.prior else scales[0]
        solution = (self.prior.solution if self.prior else None) or (self.operator.solution if self.operator else None)
        return coefficient, solution or scales[1]

    def _operator(self, x: Tensor) -> Tensor:
        """Normalised solution of the normalised coefficient, by the trained operator or the solver."""
        a = self._physical(x)
        return self.solution.normalise(self.operator.network(a) if self.operator else solve_or_nan(self.problem, a))

    def _physical(self, x: Tensor) -> Tensor:
        """The coefficient a = P(b) of the normalised free field x [..., S, S] (see Problem)."""
        return self.problem.constrain(self.coefficient.restore(x))

    def _residual(self, x: Tensor) -> Tensor:
        """Residual of the equation in units of std(a), for normalised (coefficient, solution) [B, 2, S, S]."""
        a, u = self._physical(x[:, 0]), self.solution.restore(x[:, 1])
        return self.problem.residual(a, u) / self.coefficient.std

    def _spectrum(self) -> Tensor:
        """Variance of the normalised coefficient's modes: empirical, or of the closed form for methods without a prior."""
        if self.prior is not None and self.prior.spectrum is not None:
            return self.prior.spectrum
        spectrum = self.problem.prior_spectrum(self.basis.size) if self.prior is None else None
        if spectrum is None:
            return torch.zeros(self.basis.size, self.basis.size, dtype=torch.float64)
        return spectrum * (SIGMA_DATA / self.coefficient.std) ** 2

    def work_folder(self, stage: str, digest: str) -> Path:
        """Where finished batches lie until the file is whole; named by all that they were made from, weights included."""
        case = self.case
        names = self.study.models_of(case.run, case.percent)
        weights = [model_folder(self.study, case.problem, name) / "weights.safetensors" for name in names]
        mark = fingerprint(self.study, case.problem, stage, digest + "".join(map(file_digest, weights)), type(self.method))
        return self.study.folder / "work" / case.problem / f"{stage}-{case.observation}-{case.run}-{case.percent}-{mark}"

    def _observation(self, observed: Observed, start: int, stop: int) -> Observation:
        """Normalised observation of fields start to stop - 1, with its covariance R."""
        index = torch.from_numpy(observed.index[start:stop]).to(self.device)
        variance = observed.variance * (SIGMA_DATA / self.solution.std) ** 2
        error, model = None, getattr(self.settings, "error_model", "none")
        if self.operator is not None and model == "white":
            variance += self.operator.information["error_variance"]
        elif self.operator is not None and model == "spectral":
            error = self.operator.error_spectrum
        covariance = error_covariance(index, variance, self.basis, error)
        values = self.solution.normalise(torch.from_numpy(observed.values[start:stop]).double()).to(self.device)
        return Observation(index, values, covariance)

    def _task(self, observation: Observation, generators: list[np.random.Generator]) -> Task:
        size, noise = self.study.data.resolution, self.study.noise
        white = self.method.noise == "white"
        return Task(
            problem=self.problem,
            observation=observation,
            generators=generators,
            basis=self.basis,
            noise=WhiteNoise() if white else make_noise(size, self.basis, **noise.model_dump()),
            operator=self._operator,
            residual=self._residual,
            spectrum=self._spectrum(),
            prior=self.prior.network if self.prior else None,
        )

    def draw(self, observed: Observed, split: str, work: Path, each_step: Callable[[int, State], None] | None = None) -> Result:
        """Draws K samples of every field, batch by batch; finished batches lie in `work` and are not drawn again."""
        n, k = len(observed.coefficient), self.settings.samples
        per_batch = max(1, self.settings.batch // k)
        # All nodes at once, without R: preparation needs only to know which nodes are observed.
        index, nothing = torch.from_numpy(observed.index).to(self.device), torch.empty(0, device=self.device)
        prepared = self._task(Observation(index, nothing, nothing), [])
        self._count(prepared)
        begin = time.perf_counter()
        self.method.prepare(prepared)
        prepare_seconds = time.perf_counter() - begin
        label = f"{self.case.problem} {self.case.run}-{self.case.percent}"
        progress, batches = Progress(label, n * k, unit="samples"), []
        for start in range(0, n, per_batch):
            stop = min(start + per_batch, n)
            path = work / f"{start}.safetensors"
            if not path.exists():
                generators = [self._generator(split, field, sample) for field in range(start, stop) for sample in range(k)]
                task = self._task(self._observation(observed, start, stop), generators)
                self._draw_batch(task, path, progress, start * k, each_step)
            batches.append(load_tensors(path))
            progress.update(stop * k)
        progress.finish()
        tensors = {name: torch.cat([b[0][name] for b in batches]).numpy() for name in batches[0][0]}
        total = {key: sum(b[1][key] for b in batches) for key in ("prior", "operator", "seconds")}
        return Result(
            coefficient=tensors["x0"].reshape(n, k, *tensors["x0"].shape[1:]),
            mean=tensors.get("mean"),
            std=tensors.get("std"),
            prior_evaluations=(total["prior"] + prepared.cost.prior) / (n * k),
            operator_evaluations=(total["operator"] + prepared.cost.operator) / (n * k),
            seconds=total["seconds"] + prepare_seconds,
        )

    def _generator(self, split: str, field: int, sample: int) -> np.random.Generator:
        name = f"sample {self.case.problem} {self.case.observation} {self.case.run}"
        return generator(self.study.seed, name, SPLIT_STREAM[split], field, sample)

    def _count(self, task: Task) -> None:
        task.operator = task.cost.count_operator(task.operator)
        if task.prior is not None:
            task.prior = task.cost.count_prior(task.prior)

    def _draw_batch(
        self, task: Task, path: Path, progress: Progress, done: int, each_step: Callable[[int, State], None] | None
    ) -> None:
        self._count(task)
        begin, chains = time.perf_counter(), len(task.generators)
        state = None
        for state in self.method.sample(task):
            progress.update(done + chains * state.step // state.steps)
            if each_step is not None:
                each_step(done, state)
        assert state is not None
        scale = self.coefficient.std / SIGMA_DATA
        tensors = {"x0": self._physical(state.x0)}
        if state.mean is not None and state.std is not None:
            # Where a closed form exists, P is a mask of nodes: it acts on a standard deviation as on a field.
            tensors |= {"mean": self._physical(state.mean), "std": self.problem.constrain(state.std * scale)}
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        save_tensors(path, tensors, {"prior": task.cost.prior, "operator": task.cost.operator, "seconds": seconds})


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
    joint_or_operator = method.prior == "joint" or (method.uses_operator and settings.operator == "fno" and method.prior)
    attributes: dict[str, Any] = {
        "problem": case.problem,
        "pde": study.problems[case.problem].pde,
        "run": case.run,
        "method": settings.method,
        "operator": ("solver" if method.prior is None else settings.operator) if method.uses_operator else None,
        "percent": float(case.percent),
        "pairs": len(training_share(study, case.percent)) if joint_or_operator else None,
        "observation": case.observation,
        "noise": study.observations[case.observation].noise,
        "solution_std": observed.scale,
        "seed": study.seed,
        "prior_evaluations": result.prior_evaluations,
        "operator_evaluations": result.operator_evaluations,
        "seconds_per_field": result.seconds / n,
        "seconds_per_sample": result.seconds / (n * k),
        "peak_memory_mb": peak_memory_mb(),
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
