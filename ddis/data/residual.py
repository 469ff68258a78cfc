"""How well pairs solve their discrete equation, as one number per field."""

import numpy as np
import torch
from torch import Tensor

from ddis.pde.base import Problem


def _norm(field: Tensor) -> Tensor:
    return torch.linalg.vector_norm(field.flatten(1), dim=1)


@torch.no_grad()
def relative_residual(problem: Problem, coefficient: Tensor, solution: Tensor) -> np.ndarray:
    """||r(a, u)|| / ||r(a, 0)|| of each of the fields [N, S, S]: [N], float64.

    r(a, 0) is what the solution has to balance: the source, in the linear problems.
    """
    a, u = coefficient.double(), solution.double()
    scale = _norm(problem.residual(a, torch.zeros_like(u)))
    return (_norm(problem.residual(a, u)) / scale.clamp_min(torch.finfo(torch.float64).tiny)).numpy()


@torch.no_grad()
def rounding_residual(problem: Problem, coefficient: Tensor, solution: Tensor) -> np.ndarray:
    """The relative residual [N] that float32 storage alone gives to fields that solve their equation exactly.

    Rounding moves a value v by at most half a unit in its last place, 2⁻²⁴ |v|. The residual of u moves with it, for a 5-point
    stencil by up to 8 (S-1)² 2⁻²⁴ max|u|: large, because a second difference takes nearly equal numbers apart. The figure here is
    the residual's change when a and u are moved by that much up or down at random, for any equation.
    """
    a, u = coefficient.double(), solution.double()
    moved = [field * (1 + 2.0**-24 * _signs(field.shape)) for field in (a, u)]
    scale = _norm(problem.residual(a, torch.zeros_like(u)))
    change = _norm(problem.residual(*moved) - problem.residual(a, u))
    return (change / scale.clamp_min(torch.finfo(torch.float64).tiny)).numpy()


def _signs(shape: torch.Size) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.float64) * 2 - 1
