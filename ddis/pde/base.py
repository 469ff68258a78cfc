"""What a problem is: the one interface between an equation and everything else."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ddis.errors import InputError
from ddis.fields.gaussian import sample_neumann
from ddis.fields.mixture import Drawn, Mixture, neumann_mixture, sample_neumann_mixture
from ddis.grid import Grid, Space, square
from ddis.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


# Maps of a grid's nodes onto themselves: each axis reversed or not, axes of one length exchanged, periodic axes shifted.
Symmetry = Literal["flips", "transposition", "shifts"]
SQUARE: frozenset[Symmetry] = frozenset({"flips", "transposition"})


DISTRIBUTION = ("sample_coefficients", "coefficient_space", "relax", "solve")  # what symmetries depend on


class ProblemParameters(BaseModel):
    """Parameters of a problem, set beside `pde` in the configuration; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RandomFieldParameters(ProblemParameters):
    """alpha, tau: smoothness (at most 1: the variance grows with the resolution) and inverse length scale of the random field."""

    alpha: float = Field(2.0, gt=1)
    tau: float = Field(3.0, gt=0)


def number_or_range(above: float) -> BeforeValidator:
    """Accepts a finite number above `above`, or the two ends [low, high] of a range of such."""

    def check(value: Any) -> Drawn:
        ends = list(value) if isinstance(value, list | tuple) else [value]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and above < end < math.inf for end in ends)
        if not numbers or ends != sorted(set(ends)) or len(ends) != (2 if isinstance(value, list | tuple) else 1):
            raise ValueError(f"{value!r}; accepted: a number above {above:g}, or [low, high] of two")
        return float(ends[0]) if len(ends) == 1 else (float(ends[0]), float(ends[1]))

    return BeforeValidator(check, json_schema_input_type=float | tuple[float, float])


class MixtureParameters(ProblemParameters):
    """alpha, tau: as of a random field, or a range [low, high] of which every field draws its own."""

    alpha: Annotated[Drawn, number_or_range(above=1)] = 2.0
    tau: Annotated[Drawn, number_or_range(above=0)] = 3.0

    @property
    def drawn(self) -> bool:
        """Whether fields differ in alpha or tau."""
        return isinstance(self.alpha, tuple) or isinstance(self.tau, tuple)

    def sample(self, indices: Sequence[int], grid: Grid, seed: int) -> Tensor:
        """The benchmark's random fields [N, *shape] on a bounded grid, float64."""
        if isinstance(self.alpha, tuple) or isinstance(self.tau, tuple):
            return sample_neumann_mixture(indices, grid, seed, self.alpha, self.tau)
        return sample_neumann(indices, grid, seed, self.alpha, self.tau)

    def mixture(self, grid: Grid) -> Mixture:
        """Their distribution."""
        return neumann_mixture(grid, self.alpha, self.tau)

    def spectrum(self, grid: Grid) -> Tensor | None:
        """Variance [*shape] of their modes, if all fields have the same; else None."""
        return None if self.drawn else self.mixture(grid).spectra[0]


class Problem(ABC):
    """An equation u = G(a) with the distribution of its coefficient a.

    Fields are tensors [..., *shape], float64 inside, of the two spaces: by default S x S nodes of the unit square, [i, j] at
    x = i/(S-1), y = j/(S-1), or at i/S, j/S where `basis` is "fourier", the basis of periodic domains. A problem with other
    grids or more channels says so in `coefficient_space` and `solution_space`.

    Coefficients may be constrained: zero at the boundary, positive, between two values. Then a = P(b) of a free field b:
    `constrain` is P, `relax` gives a b with P(b) = a. Priors are trained on relaxed coefficients, samplers work on b with the
    operator G(P(b)), and what they write is P(b). Both are the identity unless a problem says otherwise.
    """

    Parameters: ClassVar[type[ProblemParameters]] = ProblemParameters
    equation: ClassVar[str]
    boundary: ClassVar[str]
    distribution: ClassVar[str]
    solver: ClassVar[str] = ""  # scheme and solver, for the dataset card
    coefficient_label: ClassVar[str] = "a"
    solution_label: ClassVar[str] = "u"
    basis: ClassVar[Literal["cosine", "fourier"]] = "cosine"
    linear: ClassVar[bool] = False
    even: ClassVar[bool] = False  # G(-a) = G(a), and -a is distributed as a: the posterior given G(a) has p(a | y) = p(-a | y)
    local_residual: ClassVar[bool] = True  # of a node and its neighbours; if not, `residual` solves the equation
    units: ClassVar[str] = "dimensionless"
    minimum_resolution: ClassVar[int] = 4

    def __init__(self, parameters: ProblemParameters):
        self.parameters = parameters
        self.resolution: int | None = None  # nodes per side, where it is settled

    @property
    def two_valued(self) -> bool:
        """Whether the coefficient takes two values only, so that the share of wrong nodes is an error too."""
        return False

    @property
    def jumps(self) -> bool:
        """Whether the coefficient jumps as the Gaussian field of `latent_spectrum` passes a threshold."""
        return self.two_valued

    def check(self, resolution: int) -> None:
        """Raises InputError if the problem cannot be solved on S = `resolution` nodes per side; called before long work."""
        if resolution < self.minimum_resolution:
            raise InputError(f"resolution {resolution}: too small for the stencil; accepted: at least {self.minimum_resolution}")

    def coefficient_space(self, resolution: int) -> Space:
        """The space of coefficients, and of free fields, at S = `resolution`."""
        return Space(square(resolution, self.basis == "fourier"))

    def solution_space(self, resolution: int) -> Space:
        """The space of solutions at S = `resolution`: by default one channel on the coefficient's grid."""
        return Space(self.coefficient_space(resolution).grid)

    def spaces(self, resolution: int) -> tuple[Space, Space]:
        """Of coefficient and solution."""
        return self.coefficient_space(resolution), self.solution_space(resolution)

    def shapes(self, resolution: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the arrays of one coefficient and one solution."""
        return self.coefficient_space(resolution).shape, self.solution_space(resolution).shape

    def check_joint(self, resolution: int) -> None:
        """Raises InputError if coefficient and solution cannot be channels of one field, as joint priors need them."""
        a, u = (space.grid for space in self.spaces(resolution))
        if a.shape != u.shape:
            raise InputError(f"a joint prior needs coefficients and solutions on the same nodes; here they have {a} and {u}")

    def is_plain(self, resolution: int) -> bool:
        """Whether both fields have one channel on all S x S nodes."""
        return self.shapes(resolution) == ((resolution, resolution),) * 2 and self.coefficient_space(resolution).grid.mask is None

    @abstractmethod
    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        """Coefficients [N, *shape], float64; each depends on (seed, index) alone."""

    @abstractmethod
    def solve(self, coefficient: Tensor) -> Tensor:
        """Solutions [..., *shape] of coefficients [..., *shape]; differentiable, float64 inside, in the dtype of the input."""

    @abstractmethod
    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        """Residual of the discrete equation at the interior nodes (all nodes on periodic domains)."""

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        """Those that leave the distribution of free coefficients as it is, or that of pairs. None unless a problem says so."""
        return frozenset()

    def constrain(self, free: Tensor) -> Tensor:
        """The admissible coefficient P(b) of a free field b [..., *shape]; P(P(b)) = P(b) or P one-to-one."""
        return free

    def relax(self, coefficient: Tensor) -> Tensor:
        """A free field b [..., *shape], as smooth as it can be, with P(b) = a."""
        return coefficient

    @property
    def constrained(self) -> bool:
        """Whether the coefficient is another field than b."""
        return type(self).constrain is not Problem.constrain

    def prior_spectrum(self, resolution: int) -> Tensor | None:
        """Variance [*shape] of the free field's modes in its grid's basis, if it is Gaussian and diagonal there; else None."""
        return None

    def prior_mixture(self, resolution: int) -> Mixture | None:
        """The free field as a mixture of Gaussian fields with independent modes, if it is one; else None."""
        spectrum = self.prior_spectrum(resolution)
        return None if spectrum is None else Mixture(torch.ones(1, dtype=torch.float64), spectrum[None])

    def latent_spectrum(self, resolution: int) -> Tensor | None:
        """Variance [*shape] of the modes of the Gaussian field g that the coefficient is a map of (`from_latent`); else None."""
        return self.prior_spectrum(resolution)

    def from_latent(self, field: Tensor) -> Tensor:
        """The coefficient [..., *shape] of a Gaussian field g of `latent_spectrum`: by default P(g)."""
        return self.constrain(field)

    @property
    def is_gaussian(self) -> bool:
        """Whether the free coefficient is a Gaussian field of known spectrum."""
        return self.prior_spectrum(self.minimum_resolution) is not None

    @property
    def has_closed_form(self) -> bool:
        """Whether the exact posterior is known: G linear, P a mask of nodes (or the identity), b (a mixture of) Gaussian."""
        return self.linear and self.prior_mixture(self.minimum_resolution) is not None


def symmetries_of(problem: Problem, pairs: bool) -> frozenset[Symmetry]:
    """Those that the problem's class says; none where a subclass has another distribution and does not say its own."""
    classes = type(problem).__mro__
    said, *others = (next(made for made in classes if name in vars(made)) for name in ("symmetries", *DISTRIBUTION))
    return problem.symmetries(pairs) if all(issubclass(said, other) for other in others) else frozenset()


class RandomFieldProblem(Problem):
    """A problem whose free coefficient is the benchmark's random field on a bounded grid, or a mixture of such fields."""

    Parameters = MixtureParameters
    parameters: MixtureParameters

    def prior_spectrum(self, resolution: int) -> Tensor | None:
        return self.parameters.spectrum(self.coefficient_space(resolution).grid)

    def prior_mixture(self, resolution: int) -> Mixture | None:
        if self.parameters.drawn:
            return self.parameters.mixture(self.coefficient_space(resolution).grid)
        return super().prior_mixture(resolution)

    @property
    def is_gaussian(self) -> bool:
        return super().is_gaussian if self._own_distribution else not self.parameters.drawn

    @property
    def has_closed_form(self) -> bool:
        return super().has_closed_form if self._own_distribution else self.linear

    @property
    def _own_distribution(self) -> bool:
        """Whether a subclass says how it is distributed: what that is must then be computed."""
        return any(
            getattr(type(self), name) is not getattr(RandomFieldProblem, name) for name in ("prior_spectrum", "prior_mixture")
        )
