"""Symmetric positive definite linear equations, many at once, by preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ddis.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Apply: TypeAlias = "Callable[[Tensor], Tensor]"
# (residuals r, r·s with s the preconditioned residuals, r·s at the start) -> which equations are solved
Solved: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"


def conjugate_gradients(
    apply: Apply, right: Tensor, precondition: Apply, solved: Solved, most: int, axes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """x of A x = right [...] for every equation of a batch, and which of them are not solved after `most` iterations.

    An equation that is solved is left as it is, so that what else is in the batch changes nothing. A right side that is not
    finite gives what is not finite either.

    Args:
        apply, precondition: x -> A x, and r -> an approximation of A⁻¹ r.
        axes: those of one equation; the results of `solved` have length 1 along them.
    """

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=axes, keepdim=True)

    x, residual = 0 * right, right.clone()
    s = precondition(residual)
    p = s.clone()
    start = rho = inner(residual, s)
    active = ~solved(residual, rho, start)
    for _ in range(most):
        if not bool(active.any()):
            break
        q = apply(p)
        step = torch.where(active, rho / inner(p, q), 0.0)
        x.add_(step * p)
        residual.sub_(step * q)
        s = precondition(residual)
        rho, previous = inner(residual, s), rho
        active = active & ~solved(residual, rho, start)
        p.mul_(torch.where(active, rho / previous, 0.0)).add_(s)
    return x, active
