"""`joint-daps`: DAPS on a joint prior of (coefficient, solution), Langevin steps towards the observed nodes of the solution.

Loop and step are those of `ddis` (arXiv 2601.23280), whose authors compare with this. The misfit pulls at the observed nodes of
the second channel alone; only the prior carries that over to the coefficient. No weights are published.
"""

from collections.abc import Iterator
from typing import Any

from ddis.errors import InputError
from ddis.pde.base import Problem
from ddis.sampling.base import Batch, Evaluations, Method, Size, State
from ddis.sampling.daps import anneal
from ddis.sampling.langevin import LangevinSettings, LangevinStep
from ddis.sampling.schedules import karras_schedule


class JointDAPS(Method[LangevinSettings]):
    Settings = LangevinSettings
    prior = "joint"
    tuned = "weight"

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(prior=self.settings.prior_evaluations())

    def check(self, problem: Problem, resolution: int) -> None:
        s = self.settings
        if s.error_model != "none":
            raise InputError(f"error_model {s.error_model!r}; accepted: none, as a joint prior has no operator")

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        s = self.settings
        likelihood = LangevinStep.of(batch, s, s.weight, batch.predict_joint)
        yield from anneal(batch, likelihood, karras_schedule(s.sigma_max, s.sigma_min, s.steps), s.ode_steps, joint=True)
