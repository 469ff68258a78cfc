"""The neural operator on physical fields: what lies around the network, whatever its architecture."""

import torch
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.grid import Space
from ddis.models.architectures import Architecture
from ddis.models.normalisation import Normalisation


class NeuralOperator(nn.Module):
    """u = G_φ(a) on physical fields [B, *shape] of two spaces, at any number of nodes; differentiable with respect to a.

    The network sees normalised fields on the solution's grid, padded by reflection where the domain is bounded. A coefficient on
    a line that is the first axis of that grid is taken as the same along the second. On a masked grid the network sees
    coefficients that are 0 outside the domain, and what it says of u there is set to 0.

    Args:
        architecture: of the network.
        spaces: of coefficient and solution. Raises InputError if their grids do not fit together.
        coefficient, solution: normalisations of the pairs that the operator was trained on.
    """

    def __init__(
        self, architecture: Architecture, spaces: tuple[Space, Space], coefficient: Normalisation, solution: Normalisation
    ):
        super().__init__()
        a, u = (space.grid for space in spaces)
        if u.shape[: len(a.shape)] != a.shape:
            name = architecture.architecture
            raise InputError(f"operator {name}: coefficients on {a} nodes, solutions on {u}; accepted: the same first axes")
        self.channels, self.repeats = (spaces[0].channels, spaces[1].channels), u.shape[len(a.shape) :]
        self.architecture, self.periodic = architecture, u.periodic
        self.coefficient, self.solution = coefficient, solution
        self.outside = None if u.mask is None else torch.from_numpy(~u.mask)
        self._name = architecture.architecture.rpartition(":")[2]  # weights are called after it: fno.lifting...
        self.add_module(self._name, architecture.build(*spaces))

    @property
    def network(self) -> nn.Module:
        """Normalised channels [B, C, *nodes] -> [B, C', *nodes]."""
        return self.get_submodule(self._name)

    def forward_normalised(self, x: Tensor) -> Tensor:
        """Normalised solution [B, *shape] of the normalised coefficient x [B, *shape]."""
        x = x[:, None] if self.channels[0] == 1 else x
        for size in self.repeats:
            x = x[..., None].expand(*x.shape, size)
        sizes = x.shape[2:]
        pads = [0 if wraps else self.architecture.padded(size) for wraps, size in zip(self.periodic, sizes, strict=True)]
        if any(pads):
            x = nn.functional.pad(x, [pad for pad in reversed(pads) for _ in range(2)], mode="reflect")
        padded = self.network(x)
        expected = (len(x), self.channels[1], *x.shape[2:])
        if padded.shape != expected:
            raise InputError(
                f"architecture {self._name}: shape {tuple(padded.shape)} from {tuple(x.shape)}; accepted: {expected}"
            )
        out: Tensor = padded[(..., *(slice(pad, pad + size) for pad, size in zip(pads, sizes, strict=True)))]
        out = out[:, 0] if self.channels[1] == 1 else out
        if self.outside is None:
            return out
        return torch.where(self.outside.to(out.device), self.solution.normalise(torch.zeros_like(out)), out)

    def forward(self, coefficient: Tensor) -> Tensor:
        return self.solution.restore(self.forward_normalised(self.coefficient.normalise(coefficient)))
