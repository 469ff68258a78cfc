"""`ddis-dps`: DPS on the coefficient prior, guided by the observations through the operator, G(D).

The loop, losses and schedule are those of `fundps`, so that what differs from it is the prior and the operator, and from `ddis`
the sampler. No weights are published: they depend on the operator's Jacobian, and are chosen on validation fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ddis.sampling.base import Batch, Evaluations, Method, Size, State, number
from ddis.sampling.dps import DPSSettings, guided_ode
from ddis.sampling.schedules import karras_schedule

if TYPE_CHECKING:
    from torch import Tensor


class DDISDPS(Method[DPSSettings]):
    Settings = DPSSettings
    prior = "coefficient"
    uses_operator = True
    tuned = "weight"

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(prior=6 * self.settings.steps, operator=3 * self.settings.steps)

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        s = self.settings
        weight = number(s.weight)

        def loss(x0_hat: Tensor, sigma: float) -> Tensor:
            return min(1.0, sigma) * weight * s.reduce(batch.observation.misfit(batch.predict(batch.free(x0_hat))))

        levels = karras_schedule(number(s.sigma_max), number(s.sigma_min), s.steps)
        yield from guided_ode(batch, batch.spaces[0].channels, loss, levels)
