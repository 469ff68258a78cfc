"""`ddis solve`: the posterior of a user's own observations, with the networks of a finished study. `ddis.solve` in Python.

The networks know solutions at the nodes only; between them solutions are interpolated bilinearly. What separates an observation
from the prediction is then R: its noise, the error of interpolation (independent from point to point, estimated on solutions of
draws from the prior) and the operator's own error. Noise below 0.1 % of the standard deviation of solutions is taken as that.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits
from torch import Tensor

from ddis import provenance
from ddis.config import Case, Study
from ddis.data.normalisation import SIGMA_DATA
from ddis.data.observations import Observations, read_observations
from ddis.data.store import write_arrays
from ddis.data.subsets import fraction_of, percent_name
from ddis.errors import InputError
from ddis.evaluation.figures import posterior
from ddis.evaluation.figures.style import to_png
from ddis.files import atomic_path
from ddis.pde.base import Problem
from ddis.progress import Progress
from ddis.randomness import generator, white_noise
from ddis.sampling.base import State, Task
from ddis.sampling.observation import error_growth
from ddis.sampling.points import Interpolation, PointObservation, interpolation, interpolation_variance, point_covariance
from ddis.stages.common import load_pairs, training_share
from ddis.stages.records import check_writable
from ddis.stages.sampler import NOISELESS_VARIANCE, Sampler

_log = logging.getLogger(__name__)

LAYOUT = "ddis-solution"
PLAUSIBLE = 0.999  # probability of a chi-square below the limit
INTERPOLATION_DRAWS = 32
LARGEST = 1e6  # value, in standard deviations of the study's solutions

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Misfit:
    """How the samples' predictions differ from the observations, in units of what R explains.

    ratio       root mean square of R^(-1/2) (y - M G(a)) over samples and observations; about 1 if all is as it should be
    chi_square  m ratio², limit: what it exceeds with a probability of 0.1 % if R holds
    worst       number of the observation that fits worst (its row, from 0), and by how many standard deviations
    """

    ratio: float
    chi_square: float
    limit: float
    worst: int
    worst_deviations: float

    @property
    def explained(self) -> bool:
        return self.chi_square <= self.limit


@dataclass(frozen=True)
class Solution:
    """The posterior of a coefficient given observations, in physical units.

    mean, std [S, S]; samples [K, S, S]; x, y [S]: places of the nodes [i, j]; predicted [K, m]: the operator's solution of each
    sample at the observed points, with its gains where the error model has them. std is that of the samples (n - 1). attributes:
    how it was made.
    """

    mean: Array
    std: Array
    samples: Array
    x: Array
    y: Array
    observations: Observations
    predicted: Array
    misfit: Misfit
    attributes: dict[str, Any]
    problem: Problem

    def save(self, path: Path | str) -> None:
        """Writes `path` (HDF5) and a picture beside it (PNG), each whole or not at all; what is there is written over."""
        arrays = {name: getattr(self, name) for name in ("mean", "std", "samples", "x", "y", "predicted")}
        write_arrays(path, LAYOUT, {**arrays, "observations": self.observations.table()}, self.attributes)
        with atomic_path(picture_path(path)) as temporary:
            temporary.write_bytes(to_png(self.picture()))

    def picture(self) -> Figure:
        """The observations, mean, standard deviation, and two samples."""
        known, problem = self.attributes, self.problem
        names = tuple(f"{label} ({problem.units})" for label in (problem.coefficient_label, problem.solution_label))
        pairs = "" if known["pairs"] is None else f", {known['percent']:g} % of the pairs"
        title = f"{known['problem']}, {known['run']}{pairs}"
        return posterior.picture(self.observations, self.mean, self.std, self.samples, self.x, (names[0], names[1]), title)


def solve(
    model: Path | str,
    observations: Any,
    *,
    percent: str | float,
    samples: int = 8,
    method: str = "ddis-gn",
    seed: int = 0,
) -> Solution:
    """Draws posterior samples of the coefficient given sparse observations of the solution.

    Args:
        model: results/<study>/models/<problem>; the study's config.yaml must be where it is in results/<study>.
        observations: CSV file, data frame, array [m, 3 or 4], or (mask, solution); see `ddis.data.observations`.
        percent: of the pairs that the operator was trained on, as in file names.
        samples: K, at least 2.
        method: a run of the study, with its settings, or any method with its default settings.
        seed: of the samples.

    Raises InputError for whatever cannot be used, before any long work.
    """
    study, problem = open_model(Path(model))
    study = with_run(study, problem, method, samples)
    case = Case(problem, "own", method, checked_percent(study, Path(model), problem, method, percent))
    if seed < 0:
        raise InputError(f"seed {seed}; accepted: 0 or more")
    basis = study.make_problem(problem).basis
    data = read_observations(observations, study.data.resolution, basis == "fourier")
    with threads(study.threads):
        return posterior_of(study, case, data, seed)


def posterior_of(study: Study, case: Case, data: Observations, seed: int) -> Solution:
    """The posterior of checked observations, by a run that is in the study."""
    settings = study.runs[case.run].for_case(case.problem, case.percent)
    sampler = Sampler(study, case, settings)
    periodic, size = sampler.basis.name == "fourier", study.data.resolution
    observation = observe_points(sampler, data, interpolation(data.x, data.y, size, periodic), periodic)
    begin = time.perf_counter()
    free, cost = draw(sampler, observation, seed)
    with torch.no_grad():
        coefficient = sampler.physical(free)
        predicted = observation.take(sampler.task(observation, []).operator(free)).double()
    kept = (coefficient.flatten(1).isfinite().all(dim=1) & predicted.isfinite().all(dim=1)).cpu()
    if int(kept.sum()) < 2:
        raise InputError(f"{int((~kept).sum())} of {len(free)} samples are not finite; try another method, or a smaller weight")
    if not kept.all():
        _log.warning("%d of %d samples are not finite and are left out", int((~kept).sum()), len(free))
    fields, predicted = coefficient.double().cpu().numpy()[kept.numpy()], predicted[kept.to(predicted.device)]
    operator = study.operator_of(case.run)
    misfit = misfit_of(observation, predicted)
    record = provenance.collect(settings.model_dump(mode="json"), seed, str(sampler.device))
    attributes = {
        **{"study": study.study, "problem": case.problem, "pde": study.problems[case.problem].pde},
        **{"run": case.run, "method": settings.method, "operator": operator, "percent": float(case.percent)},
        "pairs": len(training_share(study, case.percent)) if study.uses_pairs(case.run) else None,
        "models": {
            name: study.digest("train", problem=case.problem, model=name) for name in study.models_of(case.run, case.percent)
        },
        "operator_error_in_R": sampler.operator_error() != (0.0, None),
        **{"seed": seed, "n_failed": int((~kept).sum()), **asdict(misfit)},
        "prior_evaluations": cost[0] / len(kept),
        "operator_evaluations": cost[1] / len(kept),
        "seconds": time.perf_counter() - begin,
        "device": record["device"],
        "provenance": record,
    }
    nodes = (np.arange(size) / (size if periodic else size - 1)).astype(np.float32)
    return Solution(
        mean=fields.mean(axis=0).astype(np.float32),
        std=fields.std(axis=0, ddof=1).astype(np.float32),
        samples=fields.astype(np.float32),
        x=nodes,
        y=nodes,
        observations=data,
        predicted=sampler.solution.restore(predicted).cpu().numpy().astype(np.float32),
        misfit=misfit,
        attributes=attributes,
        problem=sampler.problem,
    )


def open_model(model: Path) -> tuple[Study, str]:
    """The study that the folder results/<study>/models/<problem> belongs to, and the problem. Raises InputError."""
    path = model.absolute()
    folder = path.parents[1] if len(path.parts) > 2 else path
    if path.parent.name != "models" or not path.is_dir() or not (folder / "config.yaml").is_file():
        raise InputError(
            f"model {model}; accepted: results/<study>/models/<problem>, with the study's config.yaml in results/<study>"
        )
    study = Study.in_folder(folder)
    study.make_problem(path.name)
    return study, path.name


def with_run(study: Study, problem: str, name: str, samples: int) -> Study:
    """The study with K samples in its run `name`, or with a run of the method of that name, at every percent there is."""
    if samples < 2:
        raise InputError(f"samples {samples}; accepted: 2 or more, for a standard deviation")
    content, folder = study.resolved(), study.folder
    fractions = sorted({*study.fractions, *(f for run in study.runs.values() for f in run.fractions or ())})
    run = content["runs"].setdefault(name, {"method": name, "fractions": fractions})
    run |= {"samples": samples, "problems": [problem]}
    changed = Study.load(content)
    changed._folder = folder
    return changed


def checked_percent(study: Study, model: Path, problem: str, run: str, percent: str | float) -> str:
    """The percent as in file names; 100 for runs that use no pairs.

    Raises InputError, with the percents that there are, if the networks for it are not there.
    """
    label = percent if isinstance(percent, str) else percent_name(percent)
    fraction_of(label)
    if not study.uses_pairs(run):
        return "100"

    def complete(candidate: str) -> bool:
        return all((model / name / "weights.safetensors").is_file() for name in study.models_of(run, candidate))

    accepted = [candidate for candidate in study.percents(run) if complete(candidate)]
    if label not in accepted:
        there = ", ".join(accepted) or "none"
        raise InputError(f"percent {label}: {run} has no network for it in {model}; percents there: {there}")
    return label


def observe_points(sampler: Sampler, data: Observations, places: Interpolation, periodic: bool) -> PointObservation:
    """The normalised observation, with its covariance R."""
    unit = SIGMA_DATA / sampler.solution.std
    operator_variance, error_spectrum = sampler.operator_error()
    variance = torch.from_numpy(np.maximum(data.noise * unit, NOISELESS_VARIANCE**0.5 * SIGMA_DATA) ** 2) + operator_variance
    variance = variance + interpolation_variance(places, typical_solutions(sampler), periodic)
    values = sampler.solution.normalise(torch.from_numpy(data.value))[None]
    largest = int(values.abs().argmax())
    if float(values.abs().max()) > LARGEST * SIGMA_DATA:
        raise InputError(
            f"observations: value {data.value[largest]:g} at ({data.x[largest]:g}, {data.y[largest]:g}) is more than {LARGEST:g} "
            f"standard deviations ({sampler.solution.std:.3g}) of the study's solutions; give values in their unit"
        )
    if error_spectrum is not None:
        error_spectrum = error_growth(values) * error_spectrum
    covariance = point_covariance(places, variance, sampler.basis, error_spectrum)
    index = torch.arange(len(data))[None]
    index, values, covariance = (tensor.to(sampler.device) for tensor in (index, values, covariance))
    return PointObservation(index, values, covariance, places)


def typical_solutions(sampler: Sampler) -> Tensor:
    """Normalised solutions [N, S, S] of draws from the Gaussian prior; of the share's pairs for methods with a joint prior."""
    if not bool(sampler.spectrum.any()):
        pairs = load_pairs(sampler.study, sampler.case.problem, "train")
        known = training_share(sampler.study, sampler.case.percent)[:INTERPOLATION_DRAWS]
        return sampler.solution.normalise(torch.from_numpy(pairs.solution[known])).double()
    generators = [generator(sampler.study.seed, "interpolation", number) for number in range(INTERPOLATION_DRAWS)]
    white = torch.from_numpy(white_noise((sampler.basis.size, sampler.basis.size), generators)).double()
    draws = (sampler.mean + sampler.basis.inverse(sampler.spectrum.cpu().sqrt() * white)).float().to(sampler.device)
    with torch.no_grad():
        return sampler.predict(draws).double().cpu()


def draw(sampler: Sampler, observation: PointObservation, seed: int) -> tuple[Tensor, tuple[int, int]]:
    """Normalised free fields [K, S, S], and the evaluations of prior and operator that they took."""
    total = sampler.settings.samples
    generators = [generator(seed, f"solve {sampler.case.problem}", number) for number in range(total)]
    progress = Progress(f"{sampler.case.problem} {sampler.case.run}", total, unit="samples")
    prepared = counted(sampler, observation, [])
    sampler.method.prepare(prepared)
    parts, costs = [], [prepared.cost]
    for start in range(0, total, sampler.settings.batch):
        task = counted(sampler, observation, generators[start : start + sampler.settings.batch])
        state: State | None = None
        for state in sampler.method.sample(task):
            progress.update(start + len(task.generators) * state.step // state.steps)
        assert state is not None
        parts.append(state.x0)
        costs.append(task.cost)
    progress.finish()
    return torch.cat(parts), (sum(cost.prior for cost in costs), sum(cost.operator for cost in costs))


def counted(sampler: Sampler, observation: PointObservation, generators: list[np.random.Generator]) -> Task:
    task = sampler.task(observation, generators)
    sampler.count(task)
    return task


def misfit_of(observation: PointObservation, predicted: Tensor) -> Misfit:
    """The misfit of predictions [K, m]. If R holds, R^(-1/2) (y - M G(a)) of a posterior sample is standard normal."""
    covariance = observation.covariance[0].double()
    residual = observation.values.double() - predicted
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), residual.T, upper=False)
    chi_square = float(white.square().sum(dim=0).mean())
    count = residual.shape[1]
    deviations = residual.square().mean(dim=0).sqrt() / covariance.diagonal().sqrt()
    worst = int(deviations.argmax())
    limit = float(stats.chi2.ppf(PLAUSIBLE, count))
    return Misfit((chi_square / count) ** 0.5, chi_square, limit, worst, float(deviations[worst]))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Runs the block with this number of threads, deterministically, in float32 on GPUs too; afterwards all is as before."""
    before, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(number)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.allow_tf32 = tf32


def picture_path(output: Path | str) -> Path:
    return Path(output).with_suffix(".png")


def run_file(
    output: Path, model: Path, observations: Path, percent: str, samples: int, method: str, seed: int, force: bool
) -> None:
    """Writes the posterior to `output` and its picture beside it; says how well the samples fit the observations."""
    if output.suffix not in (".h5", ".hdf5"):
        raise InputError(f"--output {output}; accepted: a name that ends with .h5")
    there = [path for path in (output, picture_path(output)) if path.exists()]
    if there and not force:
        raise InputError(f"{there[0]} is there already; choose another --output, or write over it with --force")
    check_writable(output.parent)
    solution = solve(model, observations, percent=percent, samples=samples, method=method, seed=seed)
    solution.save(output)
    _log.info("%s, %s: mean, standard deviation and %d samples", output, picture_path(output), len(solution.samples))
    report_misfit(solution)


def report_misfit(solution: Solution) -> None:
    """Logs the misfit; a warning if noise and operator error do not explain it."""
    misfit, data = solution.misfit, solution.observations
    causes = "noise and operator error explain" if solution.attributes["operator_error_in_R"] else "noise explains"
    if solution.attributes["operator"] == "fno" and not solution.attributes["operator_error_in_R"]:
        causes += f", without the operator's own error, which {solution.attributes['run']} does not count"
    fit = f"misfit is {misfit.ratio:.2g} times what {causes}"
    numbers = f"chi-square {misfit.chi_square:.4g} of {len(data)} observations; plausible: up to {misfit.limit:.4g}"
    if misfit.explained:
        _log.info("%s (%s)", fit, numbers)
        return
    place = f"({data.x[misfit.worst]:g}, {data.y[misfit.worst]:g})"
    _log.warning(
        "warning: %s (%s). Largest at %s: %.2g standard deviations. Check the noise, that observation, and whether the "
        "coefficient is like those of the training data",
        *(fit, numbers, place, misfit.worst_deviations),
    )
