"""What a problem is: the one interface between an equation and everything else."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor


class ProblemParameters(BaseModel):
    """Parameters of a problem, set beside `pde` in the configuration; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(ABC):
    """An equation u = G(a) with the distribution of its coefficient a.

    Fields are [..., S, S] tensors, float64 inside; [i, j] is x = i/(S-1), y = j/(S-1) (i/S on periodic domains).
    """

    Parameters: ClassVar[type[ProblemParameters]] = ProblemParameters
    equation: ClassVar[str]
    boundary: ClassVar[str]
    distribution: ClassVar[str]
    coefficient_label: ClassVar[str] = "a"
    solution_label: ClassVar[str] = "u"
    basis: ClassVar[Literal["cosine", "fourier"]] = "cosine"
    linear: ClassVar[bool] = False
    two_valued: ClassVar[bool] = False
    minimum_resolution: ClassVar[int] = 4

    def __init__(self, parameters: ProblemParameters):
        self.parameters = parameters

    @abstractmethod
    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        """Coefficients [N, S, S], float64; each depends on (seed, index) alone."""

    @abstractmethod
    def solve(self, coefficient: Tensor) -> Tensor:
        """Solutions [..., S, S] of coefficients [..., S, S]; differentiable, float64 inside, in the dtype of the input."""

    @abstractmethod
    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        """Residual of the discrete equation at the interior nodes (all nodes on periodic domains)."""

    def prior_spectrum(self, resolution: int) -> Tensor | None:
        """Variance [S, S] of the coefficient's modes in `basis`, if it is Gaussian and diagonal there; else None."""
        return None

    @property
    def has_closed_form(self) -> bool:
        """Whether the exact posterior is known: G linear and a Gaussian."""
        return self.linear and self.prior_spectrum(self.minimum_resolution) is not None
