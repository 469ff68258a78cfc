"""Any function from coefficients to solutions: no gradient is asked of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddis.errors import InputError
from ddis.lazy import torch
from ddis.models.normalisation import Normalisation
from ddis.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class BlackBox(Operator):
    """function: coefficients [N, *shape] to solutions [N, *shape], NumPy float64, in physical units.

    A field for which it raises, or gives another shape or values that are not finite, is reported, and its chain is lost; the
    others go on. solution_std: standard deviation of typical solutions, their unit; None: of those of some prior draws.
    shape: of one solution; None: that of a coefficient.
    """

    differentiable: ClassVar[bool] = False

    def __init__(
        self,
        function: Callable[[NDArray[np.float64]], Any],
        solution_std: float | None = None,
        shape: tuple[int, ...] | None = None,
    ):
        if not callable(function) or not (solution_std is None or solution_std > 0):
            raise InputError("black box: accepted: a function of an array [N, *shape], and solution_std above 0")
        self.function, self.shape = function, shape
        self.solution = None if solution_std is None else Normalisation(0.0, float(solution_std))

    def __call__(self, coefficient: Tensor) -> Tensor:
        a = coefficient.detach().double().cpu().numpy()
        shape = a.shape[1:] if self.shape is None else self.shape
        found, reason = self._solved(a, shape)
        if found is None and len(a) > 1:  # one field must not end the others
            rows = []
            for number in range(len(a)):
                row, reason = self._solved(a[number : number + 1], shape)
                if row is None:
                    _log.warning("black box: field %d of %d is lost: %s", number, len(a), reason)
                rows.append(np.full((1, *shape), np.nan) if row is None else row)
            found = np.concatenate(rows)
        elif found is None:
            _log.warning("black box: a field is lost: %s", reason)
            found = np.full((1, *shape), np.nan)
        lost = np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(axis=1))
        if lost.size and reason is None:
            _log.warning("black box: fields that are not finite are lost: %s of %d", ", ".join(map(str, lost)), len(found))
        return torch.from_numpy(np.ascontiguousarray(found)).to(coefficient)

    def _solved(self, a: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.float64] | None, str | None]:
        """Solutions [N, *shape], or None and why there are none."""
        try:
            found = np.asarray(self.function(a.copy()), dtype=np.float64)
        except Exception as error:  # whatever a user's program raises
            return None, f"{type(error).__name__}: {error}"
        if found.shape != (len(a), *shape):
            accepted = f"{(len(a), *shape)}, or black_box(function, shape=...) of a solution"
            return None, f"it gives an array of shape {found.shape} for {len(a)} coefficients; accepted: {accepted}"
        return found, None
