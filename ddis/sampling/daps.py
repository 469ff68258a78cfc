"""Decoupled annealing posterior sampling: the outer loop, for any prior and any likelihood step.

Source: Zhang et al., Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, arXiv 2407.01521,
algorithm 1. Per level σ: x0_hat from x_t by the probability-flow ODE, x0 ~ p(x0 | x0_hat, y), x_t <- x0 + σ_next n.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from ddis.sampling.base import State, Task
from ddis.sampling.schedules import solve_ode

# (x0_hat [B, S, S], sigma, progress in [0, 1]) -> x0 [B, S, S]
LikelihoodStep = Callable[[Tensor, float, float], Tensor]


def anneal(task: Task, likelihood: LikelihoodStep, levels: np.ndarray, ode_steps: int) -> Iterator[State]:
    """Yields the state after each level; levels [N + 1] end with 0, so the last state holds the samples."""
    assert task.prior is not None
    steps = len(levels) - 1
    x_t = float(levels[0]) * task.draw_noise()
    for step in range(steps):
        sigma, sigma_next = float(levels[step]), float(levels[step + 1])
        x0_hat = solve_ode(task.prior, x_t, sigma, ode_steps)[:, 0]
        x0 = likelihood(x0_hat, sigma, step / max(1, steps - 1))
        yield State(step + 1, steps, sigma, x0)
        if sigma_next > 0:
            x_t = x0[:, None] + sigma_next * task.draw_noise()
