"""Decoupled annealing posterior sampling: the outer loop, for any prior and any likelihood step.

Source: Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, arXiv 2407.01521,
algorithm 1. Per level σ: x_t <- x0 + σ n, x0_hat from x_t by the probability-flow ODE, x0 ~ p(x0 | x0_hat, y); x0 = 0 at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ddis.sampling.base import Batch, State
from ddis.sampling.schedules import solve_ode

if TYPE_CHECKING:
    from torch import Tensor

# (x0_hat [B, *shape], or [B, C, *nodes] of coefficient and solution; x_t [B, C, *nodes]; sigma; progress in [0, 1]) -> x0
LikelihoodStep = Callable[["Tensor", "Tensor", float, float], "Tensor"]


def anneal(
    batch: Batch,
    likelihood: LikelihoodStep,
    levels: np.ndarray,
    ode_steps: int,
    joint: bool = False,
    begin: int = 0,
    end: int | None = None,
    x0: Tensor | None = None,
) -> Iterator[State]:
    """Yields the state after each level; that of the last holds the samples. joint: of coefficient and solution.

    levels [N + 1] end with 0; begin, end: those to go through (all); x0 [B, C, *nodes]: what the first adds its noise to (0).
    """
    assert batch.prior is not None
    steps = len(levels) - 1
    for step in range(begin, steps if end is None else end):
        sigma = float(levels[step])
        noise = batch.draw_noise(batch.joint_channels if joint else batch.spaces[0].channels)
        x_t = sigma * noise if x0 is None else x0 + sigma * noise
        x0_hat = solve_ode(batch.prior, x_t, sigma, ode_steps)
        x0 = likelihood(x0_hat if joint else batch.free(x0_hat), x_t, sigma, step / max(1, steps - 1)).reshape(x_t.shape)
        yield State(step + 1, steps, sigma, batch.free(x0))
