"""Training of operators: relative l2 loss on normalised pairs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddis.fields.bases import Basis
from ddis.models.operator import NeuralOperator
from ddis.operators.error import operator_error_model


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


def held_out_error(model: NeuralOperator, coefficient: Tensor, solution: Tensor, basis: Basis) -> dict[str, Any]:
    """The error on held-out pairs [N, *shape] in physical units: relative, variance per node, and `operator_error_model`."""
    device = next(model.parameters()).device
    a, u = model.coefficient.normalise(coefficient).to(device), model.solution.normalise(solution).to(device)
    errors, u = prediction_errors(model, a, u).cpu(), u.cpu()
    gain, spectrum = operator_error_model(u + errors, u, basis)
    return {
        "relative_error": float((errors.flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)).mean()),
        "error_variance": float((errors**2).mean()),
        "error_gain": gain.tolist(),
        "error_spectrum": spectrum.tolist(),
    }
