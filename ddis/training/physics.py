"""Physics-informed training of operators: what the equation says of predicted solutions, beside pairs.

    loss = ||û - u|| / ||u|| + w_pde ||r(a, û)|| / ||r(a, 0)|| + w_bc (mean over the sides of the boundary of ||û|| there)

û = G_φ(a) in physical units, r the residual of the problem's own finite differences at the interior nodes, r(a, 0) what a
solution has to balance: the source. Only the first term needs a solution; the others may be taken on coefficients without pairs.
Source: Li et al., Physics-Informed Neural Operator (PINO), arXiv 2111.03794, section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddis.grid import Grid
from ddis.models.operator import NeuralOperator
from ddis.pde.base import Problem
from ddis.training.loop import batch_indices
from ddis.training.regression import relative_l2
from ddis.training.settings import PhysicsSettings


def residual_term(problem: Problem, coefficient: Tensor, solution: Tensor) -> Tensor:
    """||r(a, û)|| / ||r(a, 0)|| of each of the fields [B, *shape]: [B]."""
    source = problem.residual(coefficient, torch.zeros_like(solution))
    return problem.residual(coefficient, solution).flatten(1).norm(dim=1) / source.flatten(1).norm(dim=1)


def boundary_term(grid: Grid, solution: Tensor) -> Tensor:
    """Mean over the sides of the boundary of ||û|| there, of each of the fields [B, *shape]: [B]."""
    norms = [solution[..., torch.from_numpy(side).to(solution.device)].flatten(1).norm(dim=1) for side in grid.sides]
    return torch.stack(norms).mean(dim=0)


@dataclass(frozen=True)
class Equation:
    """The terms of a problem whose solutions are on `grid`, with their weights."""

    problem: Problem
    grid: Grid
    settings: PhysicsSettings

    def loss(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        """Mean over predicted solutions of coefficients, physical fields [B, *shape], of the weighted terms."""
        total = solution.new_zeros(())
        if self.settings.pde:
            total = total + self.settings.pde * residual_term(self.problem, coefficient, solution).mean()
        if self.settings.boundary:
            total = total + self.settings.boundary * boundary_term(self.grid, solution).mean()
        return total


def training_loss(
    model: NeuralOperator,
    pairs: tuple[Tensor, Tensor],
    coefficients: Tensor,
    equation: Equation,
    seed: int,
    batch: int,
    places: slice = slice(None),
) -> Callable[[np.ndarray, int], Tensor]:
    """The loss of a step on normalised pairs [N, *shape] and, if `unpaired`, on `batch` others of the normalised coefficients.

    places: those in a batch that the loss is asked for; which coefficients are at them depends on (seed, step) alone.
    """
    coefficient, solution = pairs

    def loss(indices: np.ndarray, step: int) -> Tensor:
        index = torch.from_numpy(indices).to(coefficient.device)
        a = coefficient[index]
        if equation.settings.unpaired:
            others = batch_indices(seed, step, batch, len(coefficients), "unpaired")[places]
            a = torch.cat([a, coefficients[torch.from_numpy(others).to(a.device)]])
        predicted = model.forward_normalised(a)
        error = relative_l2(predicted[: len(index)], solution[index]).mean()
        return error + equation.loss(model.coefficient.restore(a), model.solution.restore(predicted))

    return loss
