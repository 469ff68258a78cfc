"""`Posterior`: problem, prior, operator and observation, and the samples of the coefficient that they leave plausible.

    posterior = Posterior(problem, prior, operator, sensors, values)
    result = posterior.sample("ddis-gn", samples=64, seed=0)

Arrays in and out are NumPy, in physical units. Stages, benchmarks and tests build the same object; above it are files and jobs.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddis.arrays import numbers
from ddis.errors import InputError, whole_number
from ddis.grid import Space, split
from ddis.importance import log_likelihood, weights
from ddis.interpolation import functionals_error
from ddis.models.denoiser import SIGMA_DATA, GaussianDenoiser
from ddis.models.normalisation import Normalisation
from ddis.observe import Joined, Placed, Sensors
from ddis.observe.base import per_value
from ddis.observe.observation import NOISELESS_VARIANCE, Observation
from ddis.operators.base import Operator
from ddis.operators.corrected import Corrected
from ddis.operators.error import OperatorError
from ddis.operators.solver import Solver, or_nan, solution_unit, solved
from ddis.pde.base import Problem
from ddis.priors.base import Prior
from ddis.randomness import Generators, generator
from ddis.result import Drawn, Result, Spent, misfit_of
from ddis.sampling.base import Batch, Cost, ErrorChoice, Method, State, last_state
from ddis.sampling.methods import check_set, correcting, load_method, run_settings, without_gradients

_log = logging.getLogger(__name__)

OF_STUDIES = ("operator", "fractions", "problems")  # settings of runs that say where a study makes them, and through what
LARGEST = 1e6  # value, in standard deviations of typical fields


class Posterior:
    """The posterior of the coefficient of one solution, or of n at once.

    Args:
        problem: with a resolution, as `ddis.problem("poisson", resolution=32)`.
        prior: of its free coefficient, or of (coefficient, solution) jointly; normalised fields are in its units.
        operator: the way to the solution; None: the problem's own solver.
        sensors: what is observed, one or a sum of observation operators.
        values: observed values [m], or [n, m] of n fields, in physical units.
        chosen: which of what might be observed each field shows, [n, m]; None: as the sensors say.
        variance: of the values' independent errors [m], in place of the sensors' assumed noise.
        seed: of the draws that the error of interpolation is estimated on.
        device: where samples are computed; networks of prior and operator are moved there.

    Raises InputError for whatever does not fit together.
    """

    def __init__(
        self,
        problem: Problem,
        prior: Prior,
        operator: Operator | None,
        sensors: Sensors | Joined,
        values: ArrayLike,
        *,
        chosen: NDArray[np.int64] | None = None,
        variance: ArrayLike | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.problem, self.prior, self.seed, self.device = problem, prior, whole_number("seed", seed), _device(device)
        self.spaces = spaces_of(problem)
        _check_parts(prior, operator, sensors)
        if prior.shape != self.spaces[0].shape:
            raise InputError(f"prior of fields {prior.shape}; the problem's coefficient has {self.spaces[0].shape}")
        _check_spaces(operator, self.spaces)
        self.bases = self.spaces[0].grid.basis, self.spaces[1].grid.basis
        self.operator = operator or Solver(problem, prior.solution)
        self.operator.to(self.device)
        if isinstance(prior.denoise, torch.nn.Module):
            prior.denoise.to(self.device)
        self.coefficient = prior.coefficient
        self.solution = prior.solution or self.operator.solution or solution_unit(problem, self.operator, seed, self.device)
        self.placed = Placed(sensors, self.spaces[1], self.spaces[0])
        self.functionals = self.placed.functionals.to(self.device)
        given = numbers("values", values)
        self.single = given.ndim == 1
        given = np.atleast_2d(given)
        if chosen is None:
            chosen = np.stack([self.placed.draw(seed, number)[0] for number in range(len(given))])
        if given.shape != chosen.shape:
            raise InputError(
                f"values of shape {np.shape(values)}; accepted: {chosen.shape[1]} for each field, as the sensors give"
            )
        if not np.isfinite(given).all():
            raise InputError("values: some are not finite")
        self.index = torch.from_numpy(chosen).to(self.device)
        self._normalise(torch.from_numpy(given).double().to(self.device), variance)
        self._interpolation: dict[str, Tensor | None] = {}

    @property
    def resolution(self) -> int:
        assert self.problem.resolution is not None
        return self.problem.resolution

    def _normalise(self, values: Tensor, variance: ArrayLike | None) -> None:
        """Sets values and variance of their independent errors, both normalised."""
        pair = (self.solution, self.spaces[1]), (self.coefficient, self.spaces[0])
        means, units = ([], [])
        for normalisation, space in pair:  # at every node of a channel the same
            means.append(torch.as_tensor(normalisation.mean, dtype=torch.float64).expand(space.shape).flatten())
            units.append(1 / torch.as_tensor(normalisation.unit, dtype=torch.float64).expand(space.shape).flatten())
        first = self.functionals.index[:, 0]
        mean, unit = (torch.cat(parts).to(self.device)[first] for parts in (means, units))
        mean = mean * self.functionals.total().to(self.device)
        self.mean, self.unit = mean, unit
        self.values = (values - mean[self.index]) * unit[self.index]
        worst = self.values.abs().max()
        if float(worst) > LARGEST * SIGMA_DATA:
            field, place = divmod(int(self.values.abs().argmax()), self.values.shape[1])
            std = SIGMA_DATA / float(unit[self.index][field, place])
            raise InputError(
                f"observations: value {float(values[field, place]):g} {self._where(place)} is more than {LARGEST:g} "
                f"standard deviations ({std:.3g}) of typical fields; give values in their unit"
            )
        if variance is None:
            noise = np.concatenate([per_value("assumed_noise", part.assumed_noise, count) for part, count in self._counts()])
            assumed = torch.from_numpy(noise).to(self.device) ** 2
            floor = NOISELESS_VARIANCE * (SIGMA_DATA / unit[self.index]) ** 2
            self.variance = torch.maximum(assumed, floor) * unit[self.index] ** 2
        else:
            self.variance = torch.from_numpy(_variances(variance, values.shape)).to(self.device) * unit[self.index] ** 2

    def _where(self, place: int) -> str:
        for part, count in self._counts():
            if place < count:
                return part.where(place)
            place -= count
        raise IndexError(place)

    def _counts(self) -> list[tuple[Sensors, int]]:
        owner = self.placed.draw(self.seed, 0)[1]
        return [(part, int((owner == number).sum())) for number, part in enumerate(self.placed.sensors.parts)]

    def physical(self, x: Tensor) -> Tensor:
        """The coefficient a = P(b) of the normalised free field x [..., *shape] (see Problem)."""
        return self.problem.constrain(self.coefficient.restore(x))

    def predict(self, x: Tensor, error: OperatorError | None) -> Tensor:
        """Normalised solution of the normalised free field; its modes times the gains that belong to a counted error."""
        u = self.solution.normalise(self.operator(self.physical(x)))
        gain = None if error is None else error.gain
        return u if gain is None else self.bases[1].inverse(gain.to(u) * self.bases[1].forward(u))

    def _solver(self, cost: Cost) -> Callable[[Tensor], Tensor] | None:
        """Normalised solutions of normalised free fields through the solver that corrects the operator."""
        operator = self.operator
        if not isinstance(operator, Corrected):
            return None
        return cost.count_solver(lambda x: self.solution.normalise(operator.solver(self.physical(x))))

    def _residual(self, x: Tensor) -> Tensor:
        """Residual of the equation in units of std(a), for normalised (coefficient, solution) [B, C, *nodes]."""
        free, u = split(x, self.spaces)
        return or_nan(self.problem.residual, self.physical(free), self.solution.restore(u)) / mean_unit(self.coefficient)

    def error(self, model: ErrorChoice) -> OperatorError | None:
        """The operator's own error as a method counts it."""
        return None if self.operator.error is None else self.operator.error.counted(model)

    def check(self, method: Method[Any]) -> None:
        """Raises InputError if the method cannot do with this prior and operator."""
        name, kind = method.settings.method, method.prior or "coefficient"
        if kind != self.prior.kind and kind == "coefficient":
            raise InputError(f"method {name}: needs a prior of the coefficient alone, not a {self.prior.kind} one")
        if kind != self.prior.kind:
            raise InputError(f"method {name}: needs a {kind} prior of (coefficient, solution); load {kind}-<percent> of a study")
        if self.prior.joint:
            self.problem.check_joint(self.resolution)
        if method.prior == "coefficient" and self.prior.denoise is None:
            raise InputError(f"method {name}: needs a prior with a denoiser")
        if method.uses_operator and method.gradients and not self.operator.differentiable:
            raise InputError(f"method {name}: needs gradients of the operator, which has none; accepted: {without_gradients()}")
        if isinstance(self.operator, Corrected) and method.uses_operator and not method.corrects:
            raise InputError(f"method {name}: cannot use a solver beside the network (corrected); accepted: {correcting()}")
        if method.closed_form and not (self.problem.linear and isinstance(self.operator, Solver)):
            raise InputError(f"method {name}: needs a linear problem and its own solver")
        if method.closed_form and self.prior.mixture is None and not isinstance(self.prior.denoise, GaussianDenoiser | None):
            raise InputError(f"method {name}: needs a prior in closed form, ddis.prior.gaussian or mixture")
        method.check(self.problem, self.resolution)
        if method.sets_values:
            check_set(name, self.problem, self.placed.sensors)

    def batch(self, method: Method[Any], fields: slice, generators: Generators, cost: Cost | None = None) -> Batch:
        """Chains of some of the fields, len(generators) / n of each; what they evaluate is counted in `cost`."""
        cost, error = cost or Cost(), self.error(method.error_model)
        own = self._own_error(method.error_model, error)
        index, variance = self.index[fields], self.variance[fields]
        if own is not None:
            variance = variance + own[index]
        return Batch(
            problem=self.problem,
            observation=Observation(
                self.functionals, index, self.values[fields], variance, error, self.placed.sensors.parts[0].likelihood
            ),
            generators=generators,
            basis=self.bases[0],
            spaces=self.spaces,
            noise=self.prior.noise,
            operator=cost.count_operator(lambda x: self.predict(x, error)),
            coefficient=lambda x: self.coefficient.normalise(self.physical(x)),
            residual=self._residual,
            prior=None if self.prior.denoise is None else cost.count_prior(self.prior.denoise),
            mean=self.prior.mean,
            spectrum=self.prior.spectrum,
            mixture=self.prior.mixture,
            excess=self.prior.excess,
            solver=self._solver(cost),
            units=(mean_unit(self.coefficient) / SIGMA_DATA, mean_unit(self.solution) / SIGMA_DATA),
            cost=cost,
        )

    def _own_error(self, model: str, error: OperatorError | None) -> Tensor | None:
        """Variance [P] of the functionals' own errors, of interpolation, normalised; None: they have none."""
        if model not in self._interpolation:
            self._interpolation[model] = functionals_error(self, error)
        return self._interpolation[model]

    def prepare(self, method: Method[Any]) -> tuple[Any, Cost]:
        """What all batches of a method share, and what that cost. Raises InputError where `check` does."""
        self.check(method)
        batch = self.batch(method, slice(None), [])
        return method.prepare(batch), batch.cost

    def draw(self, method: Method[Any], chains: Generators, each_step: Callable[[int], None] | None = None) -> Drawn:
        """Chains of the only field, one per generator, `settings.batch` of them at once; each_step: called with those done."""
        prepared, cost = self.prepare(method)
        states, done = [], 0
        for part in method.together(chains):
            batch = self.batch(method, slice(None), part, cost)
            state: State | None = None
            for state in method.sample(batch, prepared):
                if each_step is not None:
                    each_step(done + len(part) * state.step // state.steps)
            done += len(part)
            states.append(last_state(state, batch, method.settings.method))
        return Drawn(torch.cat([state.x0 for state in states]), states[0].mean, states[0].std, cost)

    def sample(self, method: str = "ddis-gn", samples: int | None = None, seed: int = 0, **settings: Any) -> Result:
        """Draws posterior samples of the coefficient of one solution.

        Args:
            method: a name of the registry, or module:Class; settings: its own, as in the configuration of a run.
            samples: K; None: 64, or 1 of a method that draws one only.
            seed: a sample depends on it and on its number alone.

        Raises InputError for what the method cannot do, before any work.
        """
        if not self.single:
            raise InputError(f"values of {len(self.values)} fields, [n, m]; accepted: values [m] of one field")
        if misplaced := [name for name in OF_STUDIES if name in settings]:
            raise InputError(
                f"{misplaced[0]}: of runs of a study; here the operator is the posterior's, and there is one problem"
            )
        seed, samples = whole_number("seed", seed), _usual(method) if samples is None else samples
        resolved = run_settings(method, {**settings, "method": method, "samples": samples})
        for name, value in resolved:
            if isinstance(value, dict):
                raise InputError(f"{name} {value}; accepted: one number or word, as there is one problem")
        made = load_method(method)(resolved.for_case("", ""))
        begin = time.perf_counter()
        drawn = self.draw(made, [generator(seed, "posterior", number) for number in range(resolved.samples)])
        return self.result(made, drawn, time.perf_counter() - begin)

    def result(self, method: Method[Any], drawn: Drawn, seconds: float = 0.0, fewest: int = 1) -> Result:
        """Samples, predictions and misfit in physical units. Raises InputError if fewer than `fewest` samples are finite."""
        batch = self.batch(method, slice(None), [])
        with torch.no_grad():
            a = self.physical(drawn.x0)
            parts = drawn.x0.split(method.settings.batch)
            if batch.solver is None:
                observation, found = batch.observation, [batch.predict(x) for x in parts]
            else:
                observation = replace(batch.observation, error=None)
                found = [batch.solve(x, x.flatten(1).isfinite().all(dim=1)) for x in parts]
            predicted = torch.cat(found).double()
        kept = a.flatten(1).isfinite().all(dim=1) & predicted.isfinite().all(dim=1)
        failed = int((~kept).sum())
        if int(kept.sum()) < fewest:
            raise InputError(f"{failed} of {len(a)} samples are not finite; try another method, or a smaller weight")
        if failed:
            _log.warning("%d of %d samples are not finite and are left out", failed, len(a))
        fields, predicted = a.double()[kept].cpu().numpy(), predicted[kept]
        mean, std = fields.mean(axis=0), fields.std(axis=0, ddof=1) if len(fields) > 1 else np.full(fields.shape[1:], np.nan)
        closed = self.closed_form(drawn.mean, drawn.std)
        if closed is not None:
            mean, std = (moment[0].cpu().numpy() for moment in closed)
        place = self.index[0]
        restored = predicted / self.unit[place] + self.mean[place]
        return Result(
            samples=fields.astype(np.float32),
            mean=mean.astype(np.float32),
            std=std.astype(np.float32),
            predicted=restored.cpu().numpy().astype(np.float32),
            misfit=misfit_of(observation, predicted),
            cost=Spent(drawn.cost.prior / len(a), drawn.cost.operator / len(a), seconds, drawn.cost.solver / len(a)),
            method=method,
            failed=failed,
        )

    def weights(self, result: Result) -> NDArray[np.float64] | None:
        """Importance weights [K] of this posterior's samples, with which they are of that through the problem's own solver.

        Their sum is 1; all are 0 if the solver refuses every sample. None where no network takes part, or samples do not follow
        its likelihood (see `ddis.importance`). Costs K solutions. Raises InputError for a result of other shapes, and any error
        of the solver but InputError, by which it refuses a sample.
        """
        method, place = result.method, self.index[0]
        if not method.weighable or self.operator.error is None or isinstance(self.operator, Corrected):
            return None
        shape, count = result.samples.shape[1:], result.predicted.shape[1]
        if shape != self.spaces[0].shape or count != len(place):
            accepted = f"{self.spaces[0].shape} and {len(place)}, of this posterior"
            raise InputError(f"result: samples of {shape}, {count} values; accepted: {accepted}")
        batch = self.batch(method, slice(None), [])
        through = replace(
            batch,
            operator=lambda a: self.solution.normalise(solved(self.problem, a)),
            coefficient=self.coefficient.normalise,
            observation=replace(batch.observation, error=None),
        )
        samples, restored = (torch.from_numpy(found).double().to(self.device) for found in (result.samples, result.predicted))
        with torch.no_grad():
            found = torch.cat([through.predict(part) for part in samples.split(method.settings.batch)])
        pairs = (through.observation, found), (batch.observation, (restored - self.mean[place]) * self.unit[place])
        solver, network = (log_likelihood(seen.values[0], u, seen.covariance[0]) for seen, u in pairs)
        return weights(solver - network).cpu().numpy()

    def closed_form(self, mean: Tensor | None, std: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation [n, *shape] in physical units, of a method that has them in closed form."""
        if mean is None or std is None:
            return None
        # Where a closed form exists, P is a mask of nodes: it acts on a standard deviation as on a field.
        return self.physical(mean), self.problem.constrain(std * self.coefficient.unit)


def _device(given: torch.device | str) -> torch.device:
    """The device of a name. Raises InputError for one that is not there."""
    try:
        device = torch.device(given)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InputError(f"device {given!r}: {error}; accepted: cpu, or the cuda device of a GPU that torch finds") from error
    return device


def _variances(given: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Variances of values [n, m]. Raises InputError for another number, and for what is not above 0."""
    array = numbers("variance", given)
    if array.shape not in ((), shape[1:], shape) or not ((array > 0) & np.isfinite(array)).all():
        raise InputError(f"variance of shape {array.shape}; accepted: numbers above 0, one for each of {shape[1]} values")
    return array


def _usual(method: str) -> int:
    """The number of samples that are drawn where none is given: as many as the method's settings allow, 64 at most."""
    schema = load_method(method).Settings.model_json_schema()["properties"]["samples"]
    return min(64, schema.get("maximum", 64))


def _check_parts(prior: object, operator: object, sensors: object) -> None:
    """Raises InputError for what is no prior, no operator or no sensors, such as a bare function."""
    if not isinstance(prior, Prior):
        raise InputError(
            f"prior {type(prior).__name__}; accepted: ddis.prior.gaussian(problem), mixture, empirical or load(folder)"
        )
    if not isinstance(operator, Operator | None):
        accepted = "ddis.operator.solver(problem), black_box(function), corrected or load(folder)"
        raise InputError(f"operator {type(operator).__name__}; accepted: {accepted}")
    if not isinstance(sensors, Sensors | Joined):
        raise InputError(f"sensors {type(sensors).__name__}; accepted: ddis.observe.points(xy), nodes(index) and so on, or a sum")


def _check_spaces(operator: Operator | None, spaces: tuple[Space, Space]) -> None:
    """Raises InputError for an operator between other spaces, of another problem or resolution."""
    for part in (operator.network, operator.solver) if isinstance(operator, Corrected) else (operator,):
        for name, own, expected in zip(("coefficient", "solution"), getattr(part, "spaces", None) or (), spaces, strict=False):
            if difference := own.differs(expected):
                raise InputError(f"operator: its {name} has {difference}; make it with the same problem and resolution")


def spaces_of(problem: Problem) -> tuple[Space, Space]:
    """Of coefficient and solution. Raises InputError if the problem was made without a resolution."""
    if problem.resolution is None:
        raise InputError("the problem has no resolution; make it with ddis.problem(name, resolution=...)")
    return problem.spaces(problem.resolution)


def mean_unit(normalisation: Normalisation) -> float:
    """The standard deviation of a field; of several channels the root mean square."""
    std = np.asarray(normalisation.std)
    return float(std) if std.ndim == 0 else float(np.sqrt(np.square(std).mean()))
