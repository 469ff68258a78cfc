"""A trained neural operator."""

import torch
from torch import Tensor, nn

from ddis.grid import Space
from ddis.models.normalisation import Normalisation
from ddis.operators.base import Operator
from ddis.operators.error import OperatorError


class Network(Operator):
    """G_φ, with its error on held-out pairs."""

    def __init__(
        self,
        network: nn.Module,
        solution: Normalisation,
        error: OperatorError | None = None,
        spaces: tuple[Space, Space] | None = None,
    ):
        self.network, self.solution, self.error, self.spaces = network, solution, error, spaces

    def __call__(self, coefficient: Tensor) -> Tensor:
        out: Tensor = self.network(coefficient)
        return out

    def to(self, device: torch.device) -> None:
        self.network.to(device)
