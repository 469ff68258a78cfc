"""What a sampler is given, what it yields, and what it is chosen by."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor

from ddis.data.subsets import percent_keys
from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise
from ddis.models.denoiser import Denoiser
from ddis.pde.base import Problem
from ddis.randomness import Generators, white_noise
from ddis.sampling.observation import Observation
from ddis.written import Text

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
    operator   fno: the trained operator; solver: the problem's differentiable solver
    samples    K, samples per test field
    fractions  fractions of the pairs at which the run is made; null: those of the study
    problems   problems on which the run is made; null: all
    batch      chains (fields x samples) computed together; fixed, so that results do not depend on the machine's load
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    method: str
    operator: Literal["fno", "solver"] = "fno"
    samples: int = Field(1, ge=1)
    fractions: tuple[float, ...] | None = None
    problems: tuple[Text, ...] | None = None
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

    def for_case(self, problem: str, percent: str) -> "RunSettings":
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


@dataclass
class Cost:
    """Evaluations so far, counted in fields: calls of the prior; forward passes and products with the operator's Jacobian."""

    prior: int = 0
    operator: int = 0

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


@dataclass
class Task:
    """One batch of chains: n fields with K samples each, chain b = field b // K. All fields are normalised, zero-mean.

    "Coefficient" means the problem's free field here; the caller constrains the samples (Problem.constrain).

    prior     denoiser of the coefficient, or of (coefficient, solution) for joint methods; None for `exact`
    operator  normalised solution [B, S, S] of the normalised free field [B, S, S]: of G(P(b)), see Problem
    residual  residual of the equation, of normalised (coefficient, solution) [B, 2, S, S], in units of std(a)
    spectrum  variance C [S, S] of the coefficient's modes in `basis`
    mean      [S, S] of the coefficient, for methods without a denoiser; None: zero
    units     what 1 is worth in physical units, of the normalised coefficient and solution
    """

    problem: Problem
    observation: Observation
    generators: Generators
    basis: Basis
    noise: Noise
    operator: Callable[[Tensor], Tensor]
    residual: Callable[[Tensor], Tensor]
    spectrum: Tensor
    prior: Denoiser | None = None
    mean: Tensor | None = None
    units: tuple[float, float] = (1.0, 1.0)
    cost: Cost = field(default_factory=Cost)

    @property
    def device(self) -> torch.device:
        return self.observation.values.device

    @property
    def prior_mean(self) -> Tensor:
        """Mean [S, S] of the coefficient, float64, on the device."""
        zero = torch.zeros(self.basis.size, self.basis.size)
        return (zero if self.mean is None else self.mean).to(self.device).double()

    def draw_noise(self, channels: int = 1) -> Tensor:
        """Noise of the diffusion, [B, channels, S, S]."""
        size = self.basis.size
        return self.noise.sample((len(self.generators), channels, size, size), self.generators, self.device)

    def draw_white(self, *shape: int) -> Tensor:
        """Standard normal numbers [B, *shape], float64."""
        return torch.from_numpy(white_noise(shape, self.generators)).double().to(self.device)


@dataclass(frozen=True)
class State:
    """What a sampler yields after each step; that of the last step holds the samples.

    x0         normalised coefficient [B, S, S], the free field
    mean, std  closed form [n, S, S], for methods that have it
    """

    step: int
    steps: int
    sigma: float
    x0: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None


class Method(ABC):
    """A method of the registry: its settings, what it needs, and its sampler.

    prior          "coefficient" (all coefficients), "joint" (the pairs of the fraction), or None
    noise          "field" (the study's random field) or "white"
    uses_operator  whether an operator takes part in the guidance
    closed_form    whether it exists for linear Gaussian problems only
    tuned          name of the setting that `ddis tune` varies, or None
    """

    Settings: ClassVar[type[RunSettings]] = RunSettings
    prior: ClassVar[Literal["coefficient", "joint"] | None]
    noise: ClassVar[Literal["field", "white"]] = "field"
    uses_operator: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    tuned: ClassVar[str | None] = None

    def __init__(self, settings: RunSettings):
        self.settings = settings

    def check(self, problem: Problem, resolution: int) -> None:  # noqa: B027 (most methods fit everything)
        """Raises InputError if the settings do not fit the problem on S = `resolution` nodes per side."""

    def prepare(self, task: Task) -> None:  # noqa: B027 (most methods have nothing to prepare)
        """Work shared by all batches. `task` knows which nodes all fields observe; values, R and generators are not for use."""

    @abstractmethod
    def sample(self, task: Task) -> Iterator[State]:
        """Draws the samples of a batch, one yield per step."""
