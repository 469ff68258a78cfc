"""Moves that know no Gaussian and no derivative: what an approximate draw leaves, where the prior is not Gaussian.

Add noise to a sample, x = x0 + σ n, draw x0' given x by the reverse diffusion, and

    accept it with probability min(1, p(y | x0') / p(y | x0)).

Given x, x0 and x0' are alike under the prior. So a move leaves the posterior as it is, whatever prior, operator and likelihood
are, but for the error of the denoiser and of the steps of the reverse diffusion. Chains may begin anywhere, and come there the
sooner the nearer they begin. (Crank-Nicolson's move of Gaussian priors, x0' = sqrt(1 - b²) x0 + b n, for a prior that is
known by its denoiser.)

Of a large σ a move goes far, and is rarely accepted; of a small one it only moves details.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ddis.lazy import torch
from ddis.sampling.base import Batch
from ddis.sampling.schedules import heun_step, karras_schedule

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)
SMALLEST = 0.02  # σ at which the reverse diffusion ends
PER_UNIT = 3  # steps of it for each unit of ln σ; what they err by is in tests/test_renoise.py


def steps_from(sigma: float) -> int:
    """Steps of the reverse diffusion from the level σ."""
    return max(1, round(PER_UNIT * math.log(sigma / SMALLEST)))


def evaluations_from(sigma: float) -> int:
    """Evaluations of the denoiser in these steps."""
    return 2 * steps_from(sigma) - 1


def reverse(batch: Batch, x: Tensor, sigma: float, steps: int) -> Tensor:
    """x0 [B, *shape] given x [B, C, *nodes] at the level σ, by the stochastic reverse diffusion; 2 steps - 1 evaluations.

    A step from σ to s is one of the ODE, Heun's, to s²/σ, and noise back up to s: as much as the diffusion takes away on the way.
    (With as few steps, draws about D in place of the ODE's steps would take variance away from the fields.)
    """
    assert batch.prior is not None
    for level, following in pairwise(map(float, karras_schedule(sigma, min(SMALLEST, sigma), steps))):
        lower = following**2 / level
        x, _ = heun_step(batch.prior, x, level, lower)
        if following:
            x = x + math.sqrt(following**2 - lower**2) * batch.draw_noise(x.shape[1])
    return batch.free(x)


@torch.no_grad()
def renoise(batch: Batch, x0: Tensor, moves: int, levels: Sequence[float]) -> Iterator[tuple[float, Tensor]]:
    """The level of each move, and x0 [B, *shape] after it; the levels σ by turns."""
    space, accepted = batch.spaces[0], dict.fromkeys(levels, 0.0)
    misfit = _misfit(batch, x0)
    for number in range(moves):
        sigma = levels[number % len(levels)]
        noisy = space.channelled(x0) + sigma * batch.draw_noise(space.channels)
        proposed = reverse(batch, noisy, sigma, steps_from(sigma))
        its_misfit = _misfit(batch, proposed)
        uniform = torch.tensor([rng.random() for rng in batch.generators], dtype=torch.float64).to(misfit)
        moved = uniform.log() < misfit - its_misfit
        x0 = torch.where(moved.reshape(-1, *[1] * (x0.ndim - 1)), proposed, x0)
        misfit = torch.where(moved, its_misfit, misfit)
        accepted[sigma] += float(moved.double().mean()) / len(range(number % len(levels), moves, len(levels)))
        yield sigma, x0
    told = ", ".join(f"{100 * share:.0f} % at σ = {sigma:g}" for sigma, share in accepted.items())
    _log.info("moves accepted after noise and reverse diffusion: %s", told)


def _misfit(batch: Batch, x0: Tensor) -> Tensor:
    """-ln p(y | x0) [B]; infinite where the operator has no answer."""
    return batch.observation.negative_log_likelihood(batch.predict(x0)).nan_to_num(nan=torch.inf)
