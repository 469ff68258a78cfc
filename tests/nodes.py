"""Coordinates of nodes, for manufactured solutions."""

import torch
from torch import Tensor


def unit_square(size: int) -> tuple[Tensor, Tensor]:
    """x [S, 1] and y [1, S] of S x S nodes, both ends included, float64."""
    x = torch.linspace(0, 1, size, dtype=torch.float64)
    return x[:, None], x[None, :]
