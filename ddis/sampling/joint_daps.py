"""`joint-daps`: DAPS on a joint prior of (coefficient, solution), Langevin steps towards the observed nodes of the solution.

Loop and step are those of `ddis` (arXiv 2601.23280), whose authors compare with this. The misfit pulls at the observed nodes of
the second channel alone; only the prior carries that over to the coefficient. No weights are published.
"""

from collections.abc import Iterator

from torch import Tensor

from ddis.errors import InputError
from ddis.pde.base import Problem
from ddis.sampling.base import Method, State, Task
from ddis.sampling.daps import anneal
from ddis.sampling.langevin import LangevinSettings, LangevinStep
from ddis.sampling.schedules import karras_schedule


def solution_channel(x: Tensor) -> Tensor:
    """The solution [B, S, S] of (coefficient, solution) [B, 2, S, S]."""
    return x[:, 1]


class JointDAPS(Method):
    Settings = LangevinSettings
    prior = "joint"
    tuned = "weight"

    def check(self, problem: Problem, resolution: int) -> None:
        s = self.settings
        assert isinstance(s, LangevinSettings)
        if s.error_model != "none":
            raise InputError(f"error_model {s.error_model!r}; accepted: none, as a joint prior has no operator")

    def sample(self, task: Task) -> Iterator[State]:
        s = self.settings
        assert isinstance(s, LangevinSettings)
        likelihood = LangevinStep.of(task, s, s.weight, solution_channel)
        yield from anneal(task, likelihood, karras_schedule(s.sigma_max, s.sigma_min, s.steps), s.ode_steps, channels=2)
