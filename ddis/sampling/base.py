"""What a sampler is given, what it yields, and what it is chosen by."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ddis.data.subsets import percent_keys
from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.fields.mixture import Mixture
from ddis.fields.noise import Noise
from ddis.grid import Space, split
from ddis.lazy import torch
from ddis.observe.observation import Observation
from ddis.pde.base import Problem
from ddis.randomness import Generators, white_noise
from ddis.written import Text

if TYPE_CHECKING:
    from torch import Tensor

    from ddis.models.denoiser import Denoiser

# A number for all cases, or by problem, or by problem and percent of the pairs.
NonNegative = Annotated[float, Field(ge=0)]
PerCase = NonNegative | dict[str, NonNegative | Annotated[dict[str, NonNegative], BeforeValidator(percent_keys)]]
Positive = Annotated[float, Field(gt=0)]
PositivePerCase = Positive | dict[str, Positive | Annotated[dict[str, Positive], BeforeValidator(percent_keys)]]


def number(value: PerCase) -> float:
    """The number of a setting that `RunSettings.for_case` has resolved."""
    if isinstance(value, dict):
        raise TypeError(f"{value} is given per problem: call RunSettings.for_case first")
    return float(value)


class RunSettings(BaseModel):
    """Settings that every run has; a method adds its own.

    method     name of the method, or module:attribute of one outside the package
    operator   a trained operator of the study: its own by the name of its architecture, or one of `operators`; or solver, the
               problem's differentiable solver; or corrected, the study's own, with the residual of the solver
    samples    K, samples per test field
    fractions  fractions of the pairs at which the run is made; null: those of the study
    problems   problems on which the run is made; null: all
    observations  what it is given to see; null: each of the study's observations in turn
    batch      chains computed together, at most, of several fields or of one; fixed, so that results do not depend on the
               machine's load
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    method: str
    operator: Text = "fno"
    samples: int = Field(1, ge=1)
    fractions: tuple[float, ...] | None = None
    problems: tuple[Text, ...] | None = None
    observations: tuple[Text, ...] | None = None
    batch: int = Field(64, ge=1)

    @property
    def fields_per_batch(self) -> int:
        """Fields whose samples are drawn together."""
        return max(1, self.batch // self.samples)

    def check_cases(self, problems: Collection[str], percents: Collection[str]) -> None:
        """Raises InputError if a value is given for a problem or a percent that is not among those of the study."""
        for name, value in self:
            by_problem = value if isinstance(value, dict) else {}
            for problem, part in by_problem.items():
                if problem not in problems:
                    raise InputError(f"{name}.{problem}: no problem of the study; accepted: {', '.join(problems)}")
                unknown = set(part if isinstance(part, dict) else ()) - set(percents)
                if unknown:
                    key = f"{name}.{problem}.{min(unknown)}"
                    raise InputError(f"{key}: no percent at which the run is made; accepted: {', '.join(percents)}")

    def for_case(self, problem: str, percent: str) -> RunSettings:
        """These settings with every value per problem (and percent) replaced by the one that applies. Raises InputError."""
        chosen = {}
        for name, value in self:
            for key in (problem, percent):
                value = value.get(key) if isinstance(value, dict) else value
            if value is None and isinstance(getattr(self, name), dict):
                raise InputError(f"{name} has no value for problem {problem!r} at {percent} %; give a number for all, or add it")
            chosen[name] = value
        low, high = (chosen.get(name) for name in ("sigma_min", "sigma_max"))
        if low is not None and high is not None and low >= high:
            raise InputError(f"sigma_min {low:g} for problem {problem!r} at {percent} %; accepted: below sigma_max, {high:g}")
        return self.model_copy(update=chosen)


ErrorChoice = Literal["spectral", "white", "none"]


@dataclass(frozen=True)
class Size:
    """Of a run: m observed values and P nodes per field, n fields, whether the problem is linear and its coefficient Gaussian."""

    observed: int
    nodes: int
    fields: int
    linear: bool
    gaussian: bool


@dataclass(frozen=True)
class Evaluations:
    """Estimated cost: forward evaluations of prior and operator per sample, one with its gradient counted as three.

    solver  calls per sample of the solver that corrects the operator
    shared  evaluations of the operator before the first sample
    memory  bytes of what is kept beside networks and fields, such as the rows of a Jacobian
    """

    prior: float = 0
    operator: float = 0
    solver: float = 0
    shared: float = 0
    memory: float = 0


@dataclass
class Cost:
    """Evaluations so far, counted in fields: calls of the prior; forward passes and products with the operator's Jacobian.

    solver  calls of the solver that corrects the operator
    """

    prior: int = 0
    operator: int = 0
    solver: int = 0

    def count_prior(self, denoiser: Denoiser) -> Denoiser:
        def counted(x_t: Tensor, sigma: Tensor) -> Tensor:
            self.prior += len(x_t)
            return denoiser(x_t, sigma)

        return counted

    def count_operator(self, operator: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def backward(gradient: Tensor) -> None:
            self.operator += len(gradient)

        def counted(x: Tensor) -> Tensor:
            self.operator += len(x)
            out = operator(x)
            if out.requires_grad:
                out.register_hook(backward)
            return out

        return counted

    def count_solver(self, solver: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def counted(x: Tensor) -> Tensor:
            self.solver += len(x)
            with torch.no_grad():
                return solver(x)

        return counted


@dataclass
class Batch:
    """A batch of chains: n fields with K samples each, chain b = field b // K. `ddis.posterior.Posterior.batch` makes it.

    All fields are normalised. "Coefficient" means the problem's free field; the caller constrains the samples.

    observation  of the n fields
    generators   one per chain; none in `Method.prepare`, which draws nothing
    basis        in which coefficient and noise have independent modes
    spaces       of coefficient and solution
    noise        of the diffusion
    operator     solution [B, *shape] of the free field [B, *shape]: of G(P(b)), see Problem
    coefficient  observable coefficient P(b) [B, *shape] of the free field
    residual     residual of the equation, of (free field, solution) [B, C, *nodes], in units of std(a)
    prior        denoiser of the coefficient, or of (coefficient, solution) for joint methods; for flows their velocity
    mean         [*shape] of the coefficient; spectrum: variance [*shape] of its modes in `basis`
    mixture      closed form of the coefficient, where it is a mixture of Gaussian fields
    excess       of the denoiser's error over that of the best linear one, by noise level; None: not known (see Prior)
    solver       as operator, of the solver that corrects it and has no gradients; None: nothing does
    units        what 1 is worth in physical units, of the coefficient and of the solution
    """

    problem: Problem
    observation: Observation
    generators: Generators
    basis: Basis
    spaces: tuple[Space, Space]
    noise: Noise
    operator: Callable[[Tensor], Tensor]
    coefficient: Callable[[Tensor], Tensor]
    residual: Callable[[Tensor], Tensor]
    prior: Denoiser | None
    mean: Tensor
    spectrum: Tensor
    units: tuple[float, float]
    mixture: Mixture | None = None
    excess: Mapping[float, float] | None = None
    solver: Callable[[Tensor], Tensor] | None = None
    cost: Cost = field(default_factory=Cost)

    @property
    def device(self) -> torch.device:
        return self.observation.values.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one coefficient."""
        return self.spaces[0].shape

    @property
    def joint_channels(self) -> int:
        """Of coefficient and solution together."""
        return self.spaces[0].channels + self.spaces[1].channels

    def free(self, x: Tensor) -> Tensor:
        """The coefficients [B, *shape] among channels [B, C, *nodes], the first of them."""
        return x[:, : self.spaces[0].channels].reshape(len(x), *self.shape)

    @property
    def prior_mean(self) -> Tensor:
        """Mean [*shape] of the coefficient, float64, on the device."""
        return self.mean.to(self.device).double()

    def sense(self, x: Tensor) -> Tensor:
        """All that might be observed [B, P] of free fields x [B, *shape], through the operator."""
        return self.observation.functionals(self._seen(x, self.operator))

    def predict(self, x: Tensor) -> Tensor:
        """What is observed [B, m] of free fields x [B, *shape], through the operator."""
        return self.observation.take(self._seen(x, self.operator))

    def solve(self, x: Tensor, which: Tensor) -> Tensor:
        """As `predict`, through the solver, of the chains in `which` [B]; NaN of the others, which cost nothing."""
        assert self.solver is not None
        found = x.new_full((len(x), *self.spaces[1].shape), torch.nan)
        if bool(which.any()) and self.observation.functionals.seen[0]:
            found[which] = self.solver(x[which])
        return self.observation.take(self._seen(x, lambda _: found))

    def predict_joint(self, x: Tensor) -> Tensor:
        """What is observed [B, m] of (free field, solution) [B, C, *nodes]."""
        free, solution = split(x, self.spaces)
        return self.observation.take(self._seen(free, lambda _: solution))

    def _seen(self, x: Tensor, operator: Callable[[Tensor], Tensor]) -> Tensor:
        """The fields that the observation sees: neither operator nor coefficient is computed in vain."""
        solution, coefficient = self.observation.functionals.seen
        stack = self.observation.functionals.stack
        return stack(operator(x) if solution else None, self.coefficient(x) if coefficient else None)

    def draw_noise(self, channels: int = 1) -> Tensor:
        """Noise of the diffusion, [B, channels, *nodes]."""
        return self.noise.sample((len(self.generators), channels, *self.basis.shape), self.generators, self.device)

    def draw_white(self, *shape: int) -> Tensor:
        """Standard normal numbers [B, *shape], float64."""
        return torch.from_numpy(white_noise(shape, self.generators)).double().to(self.device)


@dataclass(frozen=True)
class State:
    """What a sampler yields after each step; that of the last step holds the samples.

    x0         normalised coefficient [B, *shape], the free field
    mean, std  closed form [n, *shape], for methods that have it
    """

    step: int
    steps: int
    sigma: float
    x0: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None


def last_state(state: State | None, batch: Batch, method: str) -> State:
    """The last state that a method yielded. Raises InputError if there is none, or not a sample for every chain."""
    expected = (len(batch.generators), *batch.shape)
    if state is None or tuple(state.x0.shape) != expected:
        found = "no state" if state is None else f"samples of shape {tuple(state.x0.shape)}"
        raise InputError(f"method {method}: yields {found}; accepted: x0 of shape {expected}, one per chain")
    return state


S = TypeVar("S", bound=RunSettings)


class Method(ABC, Generic[S]):
    """A method of the registry: its settings, what it needs, and its sampler.

    prior          "coefficient" (all coefficients), "joint" or "flow" (the pairs of the fraction; so is every section of the
                   configuration but `prior`), or None: mean and spectrum suffice
    noise          "field" (the study's random field) or "white"
    uses_operator  whether an operator takes part in the guidance
    gradients      whether it differentiates through the operator
    corrects       whether it can use a solver beside the operator (`operator: corrected`)
    closed_form    whether it exists for linear Gaussian problems only
    sets_values    whether it sets observed values, so that they must be linear in solution and free field
    uses_excess    whether it asks how good a trained denoiser is, `Batch.excess`
    weighable      whether its samples follow prior x N(y; M G(a), R), R with the operator's error as in `error_model`
    ensemble       whether the samples of a field are drawn together, whatever their number
    tuned          name of the setting that `ddis tune` varies, or None
    """

    Settings: ClassVar[type[RunSettings]] = RunSettings
    prior: ClassVar[str | None] = None
    noise: ClassVar[Literal["field", "white"]] = "field"
    uses_operator: ClassVar[bool] = False
    gradients: ClassVar[bool] = True
    corrects: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    sets_values: ClassVar[bool] = False
    uses_excess: ClassVar[bool] = False
    weighable: ClassVar[bool] = False
    ensemble: ClassVar[bool] = False
    tuned: ClassVar[str | None] = None

    def __init__(self, settings: S):
        self.settings = settings

    @property
    def error_model(self) -> ErrorChoice:
        """How the operator's own error enters R."""
        return "none"

    def check(self, problem: Problem, resolution: int) -> None:
        """Raises InputError if the settings do not fit the problem on S = `resolution` nodes per side."""

    def with_weight(self, weight: float) -> S:
        """The settings for one sample with another value of `tuned`, a single number."""
        assert self.tuned is not None
        return self.settings.model_copy(update={self.tuned: weight, "samples": 1})

    def together(self, chains: Generators) -> list[Generators]:
        """Chains in equal parts of at most `batch`, which are drawn one after the other; an ensemble is one part."""
        parts = 1 if self.ensemble else math.ceil(len(chains) / self.settings.batch)
        return [chains[len(chains) * part // parts : len(chains) * (part + 1) // parts] for part in range(parts)]

    def cost(self, size: Size) -> Evaluations:
        """What sampling costs, at most, from the settings."""
        return Evaluations()

    def prepare(self, batch: Batch) -> Any:
        """What all batches of a run share, such as the rows of a Jacobian; `sample` takes it as `prepared`.

        batch: of all fields of the run, without chains.
        """
        return None

    @abstractmethod
    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        """Draws the samples of a batch, one yield per step."""
