"""Stage `sample`: posterior samples of one run; resumes after the last finished batch of fields.

Stage `draw` draws the batches of one shard, so that several jobs can share a run; `sample` draws those that are missing.
"""

import logging
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ddis.config import Case, Study
from ddis.data.hdf5 import read_attributes
from ddis.data.store import PAIRS, Samples, failed_fields, write_samples
from ddis.evaluation.metrics import relative_l2
from ddis.observe.simulated import Simulated
from ddis.operators.solver import solved
from ddis.pde.base import Problem
from ddis.posterior import spaces_of
from ddis.provenance import peak_memory_mb
from ddis.sampling.base import RunSettings, State
from ddis.sampling.methods import operator_of, uses_pairs
from ddis.stages.common import stage, training_share
from ddis.stages.layout import data_path, samples_path
from ddis.stages.sampler import Result, Sampler, observe
from ddis.tracking import StageRun

SOLVED_TOGETHER = 2**24  # values of coefficients, 1024 fields of 128 x 128 nodes: a solver keeps several arrays of float64

_log = logging.getLogger(__name__)


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
        with tracker.loop():
            sampler.draw(observed, "test", work, range(study.data.test), log_sigma(tracker))
        result = sampler.collect(observed, work)
        samples = assemble(study, case, settings, sampler, observed, result)
        samples.attributes |= {"configuration": digest, "provenance": record}
        path = samples_path(study, **vars(case))
        write_samples(path, samples)
        failed = report_failures(f"{problem} {observation} {run}-{percent}", result.coefficient, samples.solution)
        errors = 100 * relative_l2(result.coefficient, observed.coefficient[:, None], samples.spaces[0])[~failed]
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
        with tracker.loop():
            sampler.draw(observed, "test", work, study.shards_of(case)[int(shard)], log_sigma(tracker))


def log_sigma(tracker: StageRun) -> Callable[[int, State], None]:
    """What `Sampler.draw` calls after each step."""

    def each_step(chains_done: int, state: State) -> None:
        tracker.metrics({"sigma": state.sigma}, step=chains_done * state.steps + state.step)

    return each_step


def assemble(study: Study, case: Case, settings: RunSettings, sampler: Sampler, observed: Simulated, result: Result) -> Samples:
    """The samples file's content: what was drawn, from what, and at what cost."""
    n, k = result.coefficient.shape[:2]
    mask, observation = observed.picture()
    own_mean = result.coefficient.mean(axis=1)
    own_std = result.coefficient.std(axis=1, ddof=1) if k > 1 else np.full_like(own_mean, np.nan)
    operator, spaces = operator_of(study.runs[case.run]), spaces_of(sampler.parts.problem)
    attributes: dict[str, Any] = {
        "problem": case.problem,
        "pde": study.problems[case.problem].pde,
        "run": case.run,
        "method": settings.method,
        "prior": sampler.method.prior,
        "operator": operator,
        "percent": float(case.percent),
        "pairs": len(training_share(study, case.percent)) if uses_pairs(study.runs[case.run]) else None,
        "observation": case.observation,
        "noise": max(float(part.noise) for part in observed.placed.sensors.parts),
        "solution_std": observed.scale,
        "spaces": [space.describe() for space in spaces],
        "seed": study.seed,
        "prior_evaluations": result.prior_evaluations,
        "operator_evaluations": result.operator_evaluations,
        "solver_calls": result.solver_calls,
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
        solution=solutions(sampler.parts.problem, result.coefficient),
        seen=observed.seen(),
        domain=spaces[0].grid.mask,
        attributes=attributes,
    )


@torch.no_grad()
def solutions(problem: Problem, samples: np.ndarray) -> np.ndarray:
    """The problem's own solutions [n, K, *shape] of samples [n, K, *shape]; NaN of those that it refuses."""
    flat = torch.from_numpy(samples.reshape(-1, *samples.shape[2:]))
    parts = [solved(problem, part) for part in flat.split(max(1, SOLVED_TOGETHER // flat[0].numel()))]
    found = torch.cat(parts).numpy()
    return found.reshape(*samples.shape[:2], *found.shape[1:])
