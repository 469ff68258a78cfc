"""Adam (Kingma and Ba, arXiv 1412.6980), by torch's function for it: the class torch.optim.Adam imports torch's compiler."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Steps of parameters along their gradients.

    state  by parameter that has had a gradient: `step`, and the moving averages `exp_avg` and `exp_avg_sq`
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step with this learning rate."""
        moved = [p for p in self.parameters if p.grad is not None]
        for p in moved:
            if p not in self.state:
                self.state[p] = {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state = [self.state[p] for p in moved]
        adam(
            list(moved),
            [p.grad for p in moved if p.grad is not None],
            [s["exp_avg"] for s in state],
            [s["exp_avg_sq"] for s in state],
            [],
            [s["step"] for s in state],
            foreach=True,
            has_complex=any(p.is_complex() for p in moved),
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
