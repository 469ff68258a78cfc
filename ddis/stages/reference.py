"""Stage `reference`: reference posteriors of test fields, in closed form or by Markov chains that tell whether they converged.

Chains are kept in a work folder every few seconds, and each field's result when it ends: the same command goes on from there.
"""

import logging
import shutil
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddis.config import Case, Study
from ddis.data.references import References, read_references, write_references
from ddis.models.checkpoint import load_unfinished, save_tensors
from ddis.observe.likelihood import Likelihood, worth
from ddis.observe.simulated import Simulated
from ddis.posterior import Posterior, mean_unit
from ddis.progress import Progress
from ddis.randomness import generator
from ddis.references.chains import Budget, Chains, State
from ddis.references.diagnostics import LARGEST_R_HAT, SMALLEST_ESS
from ddis.references.kinds import kind_of
from ddis.references.latent import Latent, measured
from ddis.references.weighted import OVERSAMPLED, weighted
from ddis.sampling.methods import run_settings
from ddis.settings import ReferenceSettings
from ddis.stages.common import fingerprint, stage, training_normalisation
from ddis.stages.layout import reference_path
from ddis.stages.sampler import observe, parts_of

_log = logging.getLogger(__name__)

PACE = 10  # steps between two looks at the clock


def run(study: Study, problem: str, observation: str) -> None:
    """Writes references/<problem>/<observation>.h5."""
    labels = {"problem": problem, "observation": observation}
    settings = study.reference_settings(**labels)
    with stage(study, "reference", **labels) as (tracker, record):
        digest = study.digest("reference", **labels)
        source = study.reference_file(problem, observation)
        made_for, likelihood = study.make_problem(problem), study.likelihood(observation)
        kind = "imported" if source else kind_of(made_for, likelihood)
        observed = observe(study, Case(problem, observation, "", ""), "test", np.arange(study.reference_fields))
        work = study.folder / "work" / problem / f"reference-{observation}-{fingerprint(study, problem, 'sample', digest)}"
        if source:
            made = taken(source, study.reference_fields)
        else:
            made = (independent if made_for.has_closed_form else by_chains)(study, labels, settings, observed, work)
        made.attributes |= {
            **labels,
            "pde": study.problems[problem].pde,
            "kind": kind,
            "likelihood": made.attributes.get("likelihood", likelihood),
            "seed": study.seed,
            "coefficient_std": mean_unit(training_normalisation(study, problem, "coefficient")),
            "mean_error": mean_errors(made).tolist(),
            "configuration": digest,
            "provenance": record,
        }
        path = reference_path(study, **labels)
        write_references(path, made)
        tracker.metrics({"converged": int(made.converged.sum()), "seconds": made.attributes["seconds"]})
        tracker.artifact(path)
        shutil.rmtree(work, ignore_errors=True)


def taken(path: Path, count: int) -> References:
    """The references of the first `count` fields of somebody else's file."""
    found = read_references(path)
    told = {name: found.attributes[name][:count] for name in ("r_hat", "ess", "converged")}
    told |= {name: found.attributes[name] for name in ("likelihood", "seconds")}
    return References(found.coefficient[:count], found.weight[:count], found.mean[:count], found.std[:count], told)


def posterior_of(study: Study, labels: dict[str, str], method: str, observed: Simulated) -> tuple[Posterior, Any]:
    """The posterior of all observed fields through the solver, and a method for it."""
    settings = run_settings(method, {"samples": study.reference_settings(**labels).samples, "operator": "solver"})
    parts = parts_of(study, labels["problem"], settings, "100")
    made = Posterior(
        parts.problem,
        parts.prior,
        parts.operator,
        observed.placed.sensors,
        observed.values,
        chosen=observed.index,
        variance=observed.variance,
        seed=study.seed,
        device=parts.device,
    )
    return made, parts.method


def independent(study: Study, labels: dict[str, str], settings: ReferenceSettings, observed: Simulated, work: Path) -> References:
    """Independent draws of `exact`, field by field; of the posterior of a kernel as it weighs them."""
    begin, label = time.perf_counter(), f"{labels['problem']} {labels['observation']} reference"
    posterior, method = posterior_of(study, labels, "exact", observed)
    prepared, _ = posterior.prepare(method)
    likelihood, kernel = study.likelihood(labels["observation"]), study.likelihood(labels["observation"]) != "gaussian"
    n, count, drawn = len(observed.values), settings.samples, settings.samples * (OVERSAMPLED if kernel else 1)
    index, values, variance = known(posterior, method, observed, likelihood)
    functionals, ess = observed.placed.functionals, [float(count)] * n
    progress, draws, moments = Progress(label, n, unit="fields"), [], []
    for field in range(n):
        streams = [generator(study.seed, " ".join(["reference", *labels.values()]), field, k) for k in range(drawn)]
        *_, state = method.sample(posterior.batch(method, slice(field, field + 1), streams), prepared)
        found = posterior.physical(state.x0).cpu()
        if kernel:
            predicted = measured(posterior.problem, functionals, index[field].expand(drawn, -1), found)
            made = weighted(found, predicted, values[field], variance[field], likelihood)
            found, ess[field] = made.draws, made.ess
            moments.append([made.mean, made.std])
        else:
            closed = posterior.closed_form(state.mean, state.std)
            assert closed is not None
            moments.append([part[0].cpu() for part in closed])
        draws.append(found)
        progress.update(field + 1)
    progress.finish()
    mean, std = (torch.stack(part).numpy() for part in zip(*moments, strict=True))
    certificate = {"r_hat": [1.0] * n, "ess": ess, "converged": [number >= count for number in ess]}
    seconds = {"seconds": time.perf_counter() - begin}
    return References(torch.stack(draws).numpy(), equal_weights(n, count), mean, std, certificate | seconds)


def by_chains(study: Study, labels: dict[str, str], settings: ReferenceSettings, observed: Simulated, work: Path) -> References:
    """Draws of Markov chains, all fields together; a warning names the fields whose chains have not converged."""
    n, label = len(observed.values), f"{labels['problem']} {labels['observation']} reference"
    budget = Budget(settings.samples, settings.chains, settings.burn_in, settings.steps)
    chains = Chains(latent_of(study, labels, settings, observed), budget, study.seed, range(n), label)
    before, seconds = unfinished(work)
    begin = saved = time.perf_counter()
    progress = Progress(label, budget.burn_in + budget.steps, 0 if before is None else before.step)
    for state, found in chains.run(before):
        for row, reference in found:
            tensors = {name: getattr(reference, name).float() for name in ("draws", "mean", "std")}
            numbers = {"steps": reference.steps, "acceptance": reference.acceptance, "step_size": reference.size}
            save_tensors(work / f"{row}.safetensors", tensors, asdict(reference.diagnosis) | numbers)
        if found or (state.step % PACE == 0 and time.perf_counter() - saved > study.checkpoint_seconds):
            saved = time.perf_counter()
            save_tensors(work / "chains.safetensors", state.tensors(), state.counters() | {"seconds": seconds + saved - begin})
        progress.update(state.step, fields_left=float(len(state.row)))
    progress.finish()
    return gathered(label, work, n, budget, seconds + time.perf_counter() - begin)


def latent_of(study: Study, labels: dict[str, str], settings: ReferenceSettings, observed: Simulated) -> Latent:
    """The same likelihood as methods have with the solver: the assumed noise, and the error of interpolation between nodes."""
    posterior, method = posterior_of(study, labels, "tikhonov", observed)
    likelihood = study.likelihood(labels["observation"])
    index, values, variance = known(posterior, method, observed, likelihood)
    return Latent(posterior.problem, observed.placed.functionals, index, values, variance, likelihood)


def known(
    posterior: Posterior, method: Any, observed: Simulated, likelihood: Likelihood
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which functionals each field shows, their values and the variance of their noise, [n, m] each, in physical units."""
    seen = posterior.batch(method, slice(None), []).observation
    variance = (seen.variance.expand(seen.values.shape) / posterior.unit[posterior.index] ** 2).cpu()
    values = torch.from_numpy(observed.values).double()
    return torch.from_numpy(observed.index), values, variance / worth(likelihood, values.shape[1])


def unfinished(work: Path) -> tuple[State | None, float]:
    """The chains of an interrupted call, and the seconds that they took; None where there are none that this version knows."""
    path = work / "chains.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        return None, 0.0
    tensors, counters = load_unfinished(path)
    seconds = float(counters.pop("seconds"))
    if {*tensors, *counters} != {item.name for item in fields(State)}:
        _log.info("%s: chains of another version of ddis; they start anew", path)
        return None, 0.0
    return State.of_parts(tensors, counters), seconds


def gathered(label: str, work: Path, n: int, budget: Budget, seconds: float) -> References:
    """The results of all fields."""
    parts = [load_unfinished(work / f"{row}.safetensors") for row in range(n)]
    draws, mean, std = (torch.stack([tensors[name] for tensors, _ in parts]).numpy() for name in ("draws", "mean", "std"))
    told = {key: [numbers[key] for _, numbers in parts] for key in parts[0][1]}
    ess = np.minimum(told["ess_bulk"], told["ess_tail"])
    converged = (np.array(told["r_hat"]) <= LARGEST_R_HAT) & (ess >= SMALLEST_ESS)
    if not converged.all():
        failed = np.flatnonzero(~converged)
        _log.warning(
            "%s: the chains of %d of %d test fields have not converged (R-hat up to %.3g, effective draws from %.0f) and are "
            "left out of tables: %s; give references.steps more than %d, or the observation more noise",
            *(label, len(failed), n, max(told["r_hat"]), ess.min(), ", ".join(map(str, failed)), budget.steps),
        )
    counts = {key: told[key] for key in ("steps", "acceptance", "step_size")}
    certificate = {"r_hat": told["r_hat"], "ess": ess.tolist(), "converged": converged.tolist()}
    return References(draws, equal_weights(*draws.shape[:2]), mean, std, certificate | counts | {"seconds": seconds})


def mean_errors(references: References) -> np.ndarray:
    """Monte Carlo errors [n] of the means, in percent of them, from the smallest number of effective draws; 0 of a mean of 0."""
    mean, std = (np.linalg.norm(part.reshape(len(part), -1), axis=1) for part in (references.mean, references.std))
    relative = np.divide(100 * std, mean, out=np.zeros_like(std), where=mean > 0)
    return np.asarray(relative / np.sqrt(np.maximum(references.attributes["ess"], 1)))


def equal_weights(n: int, count: int) -> np.ndarray:
    return np.full((n, count), 1 / count)
