"""`ddis solve`: the posterior of a user's own observations, with the networks of a finished study. `ddis.solve` in Python.

The networks know fields at the nodes only; between them fields are interpolated linearly along each axis. What separates an
observation from the prediction is then R: its noise, the error of interpolation (independent from point to point, estimated on
draws from the prior and their solutions) and the operator's own error. Noise below 0.1 % of the observed field's standard
deviation is taken as that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ddis import observe, provenance
from ddis.config import Case, Study
from ddis.data.hdf5 import write_arrays
from ddis.data.observations import Observations, read_observations
from ddis.data.subsets import fraction_of, percent_label, percent_name
from ddis.errors import InputError, whole_number
from ddis.evaluation.figures import posterior as figure
from ddis.evaluation.figures.style import drawable, to_png
from ddis.files import atomic_path
from ddis.grid import Space
from ddis.importance import effective
from ddis.interpolation import INTERPOLATION_DRAWS
from ddis.pde.base import Problem
from ddis.posterior import Posterior, spaces_of
from ddis.progress import Progress
from ddis.randomness import generator
from ddis.result import Misfit, Result
from ddis.sampling.base import RunSettings
from ddis.sampling.methods import operator_of, run_settings, uses_pairs, with_operator
from ddis.stages.check import lines_of
from ddis.stages.common import open_split, training_share
from ddis.stages.records import check_writable
from ddis.stages.sampler import Parts, parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

LAYOUT = "ddis-solution"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Solution:
    """The posterior of a coefficient given observations, in physical units.

    mean, std [*shape]; samples [K, *shape]; axes: places of the nodes along each axis, by name; predicted [K, m]: the
    operator's solution of each sample at the observed points, with its gains where the error model has them, or where the
    coefficient is observed the sample. std is that of the samples (n - 1). weights [K]: see `Posterior.weights`. attributes: how
    it was made.
    """

    mean: Array
    std: Array
    samples: Array
    axes: dict[str, Array]
    observations: Observations
    predicted: Array
    misfit: Misfit
    attributes: dict[str, Any]
    problem: Problem
    weights: NDArray[np.float64] | None = None

    def save(self, path: Path | str) -> None:
        """Writes `path` (HDF5) and a picture beside it (PNG), both or none; what is there is written over."""
        picture = to_png(self.picture())
        arrays = {name: getattr(self, name) for name in ("mean", "std", "samples", "predicted")} | self.axes
        arrays |= {"observations": self.observations.table()}
        arrays |= {} if self.weights is None else {"weights": self.weights}
        arrays |= {name: kind for name in ("of", "channel") if (kind := getattr(self.observations, name)).any()}
        with atomic_path(picture_path(path)) as temporary:
            temporary.write_bytes(picture)
            write_arrays(path, LAYOUT, arrays, self.attributes)

    def picture(self) -> Figure:
        """The observations, mean, standard deviation, and two samples."""
        known, problem = self.attributes, self.problem
        names = tuple(drawable(f"{label} ({problem.units})") for label in (problem.coefficient_label, problem.solution_label))
        pairs = "" if known["pairs"] is None else f", {known['percent']:g} % of the pairs"
        title = f"{known['problem']}, {known['run']}{pairs}"
        fields = self.mean, self.std, self.samples
        return figure.picture(self.observations, fields, spaces_of(problem), (names[0], names[1]), title)


def solve(
    model: Path | str,
    observations: Any,
    *,
    percent: str | float,
    samples: int = 8,
    method: str = "ddis-gn",
    seed: int = 0,
) -> Solution:
    """Draws posterior samples of the coefficient given sparse observations of the solution, and of the coefficient itself.

    Args:
        model: results/<study>/models/<problem>; the study's config.yaml must be where it is in results/<study>.
        observations: CSV file, data frame, mapping of columns, array [m, 3 or 4], or (mask, solution); see
            `ddis.data.observations`.
        percent: of the pairs that the operator was trained on, as in file names.
        samples: K, at least 2.
        method: a run of the study, with its settings, or any method with its default settings.
        seed: of the samples.

    Raises InputError for whatever cannot be used, before any long work.
    """
    study, problem = open_model(Path(model))
    settings = settings_of(study, method, samples)
    label = checked_percent(study, Path(model), settings, method, percent)
    seed = whole_number("seed", seed)
    data = read_observations(observations, spaces_of(study.make_problem(problem)))
    with threads(study.threads):
        return solve_case(study, Case(problem, "own", method, label), settings, data, seed)


def solve_case(study: Study, case: Case, settings: RunSettings, data: Observations, seed: int) -> Solution:
    """The posterior of checked observations, by a run with these settings."""
    settings = settings.for_case(case.problem, case.percent)
    checks = lines_of(study, case.problem, case.run, case.percent)
    parts = parts_of(study, case.problem, settings, case.percent)
    posterior, order = posterior_on(study, case, parts, data)
    begin = time.perf_counter()
    generators = [generator(seed, f"solve {case.problem}", number) for number in range(settings.samples)]
    progress = Progress(f"{case.problem} {case.run}", settings.samples, unit="samples")
    drawn = posterior.draw(parts.method, generators, progress.update)
    progress.finish()
    result = posterior.result(parts.method, drawn, fewest=2)
    result = replace(result, misfit=replace(result.misfit, worst=int(order[result.misfit.worst])))
    weights = weights_of(posterior, result)
    record = provenance.collect(settings.model_dump(mode="json"), seed, str(parts.device))
    grid = posterior.spaces[0].grid
    fields = result.samples.astype(np.float64)
    return Solution(
        mean=fields.mean(axis=0).astype(np.float32),
        std=fields.std(axis=0, ddof=1).astype(np.float32),
        samples=result.samples,
        axes={name: axis.astype(np.float32) for name, axis in zip(grid.axes, grid.coordinates(), strict=True)},
        observations=data,
        predicted=result.predicted[:, np.argsort(order)],
        misfit=result.misfit,
        attributes={
            **names_of(study, case, settings),
            "operator_error_in_R": settings.operator != "corrected" and posterior.error(parts.method.error_model) is not None,
            **{"seed": seed, "n_failed": result.failed, **asdict(result.misfit)},
            **cost_of(result, settings),
            **({} if weights is None else {"effective_samples": effective(weights)}),
            **({"checks": checks} if checks else {}),
            **{"seconds": time.perf_counter() - begin, "device": record["device"], "provenance": record},
        },
        problem=parts.problem,
        weights=weights,
    )


def names_of(study: Study, case: Case, settings: RunSettings) -> dict[str, Any]:
    """What was asked: study, problem, run, pairs, and digests of the networks."""
    models = study.models_for(settings, case.percent)
    return {
        **{"study": study.study, "problem": case.problem, "pde": study.problems[case.problem].pde},
        **{"run": case.run, "method": settings.method, "operator": operator_of(settings), "percent": float(case.percent)},
        "pairs": len(training_share(study, case.percent)) if uses_pairs(settings) else None,
        "models": {name: study.digest("train", problem=case.problem, model=name) for name in models},
    }


def cost_of(result: Result, settings: RunSettings) -> dict[str, Any]:
    """Evaluations of the networks, and of the solver where it corrects one."""
    calls = {"solver_calls": result.cost.solver_calls} if settings.operator == "corrected" else {}
    evaluations = {name: getattr(result.cost, name) for name in ("prior_evaluations", "operator_evaluations")}
    return evaluations | calls


def posterior_on(study: Study, case: Case, parts: Parts, data: Observations) -> tuple[Posterior, NDArray[np.intp]]:
    """The posterior of the observations, and which of them its values are, in order."""
    prior = parts.prior
    if prior.joint:
        with open_split(study, case.problem, "train") as pairs:
            known = pairs.read(training_share(study, case.percent)[:INTERPOLATION_DRAWS])
        prior = replace(prior, examples=torch.from_numpy(known.solution))
    sensors, order = sensors_of(data, spaces_of(parts.problem))
    values = data.value[order]
    return Posterior(parts.problem, prior, parts.operator, sensors, values, seed=study.seed, device=parts.device), order


def weights_of(posterior: Posterior, result: Result) -> NDArray[np.float64] | None:
    """As `Posterior.weights`; None, with a warning, also if the solver fails: the samples are not lost with it."""
    try:
        return posterior.weights(result)
    except Exception as error:  # whatever a user's solver raises
        _log.warning("warning: no importance weights, as the solver fails: %s: %s", type(error).__name__, error)
        return None


def sensors_of(data: Observations, spaces: tuple[Space, Space]) -> tuple[observe.Sensors | observe.Joined, NDArray[np.intp]]:
    """Points of the solution, then of the coefficient, channel by channel; and the rows [m] in that order."""
    order = np.lexsort((data.channel, data.of))
    parts: list[observe.Sensors] = []
    for of, channel in sorted(set(zip(data.of.tolist(), data.channel.tolist(), strict=True))):
        rows = (data.of == of) & (data.channel == channel)
        columns = data.columns(spaces[0 if of else 1])
        kind = observe.coefficient if of else observe.points
        parts.append(kind(data.places[rows][:, columns], data.noise[rows]).of_channel(channel))
    return parts[0] if len(parts) == 1 else observe.Joined(tuple(parts)), order


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


def settings_of(study: Study, name: str, samples: int) -> RunSettings:
    """The settings of the study's run `name`, or of the method of that name, with K samples."""
    if samples < 2:
        raise InputError(f"samples {samples}; accepted: 2 or more, for a standard deviation")
    known = study.runs[name].model_dump() if name in study.runs else {"method": name}
    return with_operator(run_settings(name, {**known, "samples": samples}), study.operator.name)


def checked_percent(study: Study, model: Path, settings: RunSettings, run: str, percent: str | float) -> str:
    """The percent as in file names; 100 for runs that use no pairs.

    Raises InputError, with the percents that there are, if the networks for it are not there.
    """
    label = percent if isinstance(percent, str) else percent_name(percent)
    fraction_of(label)
    if not uses_pairs(settings):
        return "100"

    def complete(candidate: str) -> bool:
        return all((model / name / "weights.safetensors").is_file() for name in study.models_for(settings, candidate))

    fractions = {*study.fractions, *(f for other in study.runs.values() for f in other.fractions or ())}
    own = study.runs[run].fractions if run in study.runs else None
    tried = sorted(fractions) if run not in study.runs else list(study.fractions if own is None else own)
    accepted = [candidate for candidate in map(percent_label, tried) if complete(candidate)]
    if label not in accepted:
        there = ", ".join(accepted) or "none"
        raise InputError(f"percent {label}: {run} has no network for it in {model}; percents there: {there}")
    return label


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
    folders = [path for path in there if path.is_dir()]
    if folders:
        raise InputError(f"{folders[0]} is a folder; choose another --output")
    check_writable(output.parent)
    solution = solve(model, observations, percent=percent, samples=samples, method=method, seed=seed)
    solution.save(output)
    _log.info("%s, %s: mean, standard deviation and %d samples", output, picture_path(output), len(solution.samples))
    report_misfit(solution)
    report_weights(solution)
    for text in solution.attributes.get("checks", ()):
        _log.info("%s", text)


def report_misfit(solution: Solution) -> None:
    """Logs the misfit; a warning if noise and operator error do not explain it."""
    misfit, data = solution.misfit, solution.observations
    operator, counted = (solution.attributes[name] for name in ("operator", "operator_error_in_R"))
    causes = "noise and operator error explain" if counted else "noise explains"
    if operator not in (None, "", "solver", "corrected") and not counted:
        causes += f", without the operator's own error, which {solution.attributes['run']} does not count"
    fit = f"misfit is {misfit.ratio:.2g} times what {causes}"
    numbers = f"chi-square {misfit.chi_square:.4g} of {len(data)} observations; plausible: up to {misfit.limit:.4g}"
    if misfit.explained:
        _log.info("%s (%s)", fit, numbers)
        return
    _log.warning(
        "warning: %s (%s). Largest at %s: %.2g standard deviations. Check the noise, that observation, and whether the "
        "coefficient is like those of the training data",
        *(fit, numbers, data.where(misfit.worst), misfit.worst_deviations),
    )


def report_weights(solution: Solution) -> None:
    """Logs how many samples are effective against the solver's likelihood; a warning if the solver refuses all."""
    if solution.weights is None:
        return
    found, count = solution.attributes["effective_samples"], len(solution.weights)
    if not found:
        _log.warning("warning: the solver refuses all %d samples", count)
        return
    number = f"{found:.0f}" if found >= 10 else f"{found:.2g}"
    few = "; too few to reweight the samples, which is usual where R holds the operator's error" if found < count / 2 else ""
    _log.info("importance weights against the solver's likelihood: effective %s of %d samples%s", number, count, few)
