"""The problem's own finite-difference solver."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ddis.errors import InputError
from ddis.lazy import torch
from ddis.models.normalisation import Normalisation
from ddis.operators.base import Operator
from ddis.pde.base import Problem

if TYPE_CHECKING:
    from torch import Tensor

TYPICAL = 32  # solutions whose standard deviation is the unit of a problem's solutions
FEW = 8  # of those of another operator, which may be slow


def or_nan(compute: Callable[..., Tensor], *fields: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """compute(*fields) [B, *shape]; NaN where the problem refuses a field: a chain that diverges must not end the others.

    shape: of what is computed; None: that of a field.
    """
    try:
        return compute(*fields)
    except InputError:
        if len(fields[0]) == 1:
            lost = fields[0] * math.nan
            return lost if shape is None else lost.sum().expand(1, *shape)
        singles = zip(*(field.split(1) for field in fields), strict=True)
        return torch.cat([or_nan(compute, *single, shape=shape) for single in singles])


def typical_solution(problem: Problem) -> Normalisation:
    """Mean 0, so that a linear problem stays linear, and the standard deviation of some solutions."""
    assert problem.resolution is not None
    fields = problem.solve(problem.sample_coefficients(range(TYPICAL), problem.resolution, 0))
    return Normalisation(0.0, float(fields.std()))


def solution_unit(problem: Problem, operator: Operator, seed: int, device: torch.device) -> Normalisation:
    """Mean 0 and the standard deviation of the operator's solutions of typical coefficients. Raises InputError if it has none."""
    assert problem.resolution is not None
    u = operator(problem.sample_coefficients(range(FEW), problem.resolution, seed).float().to(device))
    finite = u[u.flatten(1).isfinite().all(dim=1)]
    if not len(finite) or not float(finite.std()) > 0:
        raise InputError(f"operator: no solution of {FEW} typical coefficients is finite and not constant, see the warnings")
    return Normalisation(0.0, float(finite.std()))


class Solver(Operator):
    """G of the problem itself, differentiable."""

    def __init__(self, problem: Problem, solution: Normalisation | None = None):
        self.problem, self.solution = problem, solution or typical_solution(problem)
        self.spaces = None if problem.resolution is None else problem.spaces(problem.resolution)

    def __call__(self, coefficient: Tensor) -> Tensor:
        solution = solved(self.problem, coefficient)
        if torch.is_grad_enabled() and coefficient.requires_grad and not solution.requires_grad:
            raise InputError(
                f"problem {type(self.problem).__name__}: its solve has no gradients, as it is not of PyTorch operations alone; "
                "accepted: methods that ask for none, such as es-mda"
            )
        return solution


def solved(problem: Problem, coefficient: Tensor) -> Tensor:
    """Solutions [B, *shape]; NaN for what the problem refuses. The resolution is the size of a coefficient's last axis."""
    return or_nan(problem.solve, coefficient, shape=problem.solution_space(coefficient.shape[-1]).shape)
