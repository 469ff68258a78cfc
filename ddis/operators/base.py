"""What an operator is: the way from a coefficient to its solution, and what is known of its error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ddis.grid import Space
from ddis.models.normalisation import Normalisation
from ddis.operators.error import OperatorError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Operator(ABC):
    """u = G(a), physical fields [B, *shape] on the problem's grids.

    differentiable  whether gradients go through it
    solution        normalisation of its solutions; None: not known
    error           how it errs; None: not at all, as far as is known
    spaces          those of its coefficients and solutions; None: not known
    """

    differentiable: ClassVar[bool] = True
    solution: Normalisation | None = None
    error: OperatorError | None = None
    spaces: tuple[Space, Space] | None = None

    @abstractmethod
    def __call__(self, coefficient: Tensor) -> Tensor:
        """Solutions of coefficients; NaN for a field that has none, which must not end the others."""

    def to(self, device: torch.device) -> None:  # noqa: B027 (most have no weights)
        """Moves its weights, if it has any: coefficients will be on this device."""
