"""Training of operators: relative l2 loss on normalised pairs."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ddis.models.operator import NeuralOperator


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """||prediction - target|| / ||target|| of each field [B], for fields [B, *shape]."""
    return (prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)


def training_loss(model: NeuralOperator, coefficient: Tensor, solution: Tensor) -> Callable[[np.ndarray, int], Tensor]:
    """The loss of a step on normalised pairs [N, *shape]."""

    def loss(indices: np.ndarray, step: int) -> Tensor:
        index = torch.from_numpy(indices).to(coefficient.device)
        return relative_l2(model.forward_normalised(coefficient[index]), solution[index]).mean()

    return loss


def validation_loss(coefficient: Tensor, solution: Tensor, batch: int = 64) -> Callable[[nn.Module], float]:
    """Mean relative l2 error over the validation pairs (normalised fields)."""

    def validate(model: nn.Module) -> float:
        assert isinstance(model, NeuralOperator)
        parts = [
            relative_l2(model.forward_normalised(coefficient[i : i + batch]), solution[i : i + batch]).double().sum()
            for i in range(0, len(coefficient), batch)
        ]
        return float(sum(parts)) / len(coefficient)

    return validate


@torch.no_grad()
def prediction_errors(model: NeuralOperator, coefficient: Tensor, solution: Tensor, batch: int = 64) -> Tensor:
    """Errors G_φ(a) - u [N, *shape] on normalised pairs."""
    pieces = zip(coefficient.split(batch), solution.split(batch), strict=True)
    return torch.cat([model.forward_normalised(a) - u for a, u in pieces])
