"""A network whose answers a solver corrects: the network's Jacobian, the solver's residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddis.errors import InputError
from ddis.operators.base import Operator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Corrected(Operator):
    """u = G(a) of a solver, through a network F that is differentiated in its place.

    network  F, a differentiable operator: trained, or the solver of a simpler problem; its error on held-out pairs is known
    solver   G, any operator: no gradients are asked of it, and its error is taken as 0

    Called as an operator it is F. A method that can use it asks `solver` for G, as often as its settings allow. Raises
    InputError if F is not differentiable.
    """

    def __init__(self, network: Operator, solver: Operator):
        for name, part in (("network", network), ("solver", solver)):
            if not isinstance(part, Operator) or isinstance(part, Corrected):
                raise InputError(f"corrected: {name} {part!r}; accepted: ddis.operator.load(...), solver(...) or black_box(...)")
        if not network.differentiable:
            raise InputError("corrected: the network has no gradients; accepted: ddis.operator.load(...) or solver(...)")
        self.network, self.solver = network, solver
        self.solution, self.error = network.solution or solver.solution, network.error

    def __call__(self, coefficient: Tensor) -> Tensor:
        return self.network(coefficient)

    def to(self, device: torch.device) -> None:
        self.network.to(device)
        self.solver.to(device)
