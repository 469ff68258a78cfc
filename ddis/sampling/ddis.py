"""`ddis`: the paper's sampler. DAPS on the coefficient prior, Langevin steps through the neural operator.

Source: DDIS, arXiv 2601.23280. The published weights w are for 128 x 128 and 500 observations.
"""

from collections.abc import Iterator

from pydantic import Field

from ddis.sampling.base import Method, PerCase, RunSettings, State, Task, number
from ddis.sampling.daps import anneal
from ddis.sampling.langevin import LangevinStep
from ddis.sampling.schedules import karras_schedule


class DDISSettings(RunSettings):
    """steps, sigma_max, sigma_min: annealing; ode_steps: Heun steps of the ODE; the rest: the Langevin step."""

    weight: PerCase = 20.0
    steps: int = Field(100, ge=1)
    sigma_max: float = Field(10.0, gt=0)
    sigma_min: float = Field(0.01, gt=0)
    ode_steps: int = Field(5, ge=1)
    tau: float = Field(1e-3, gt=0)
    langevin_steps: int = Field(20, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    temperature: float = Field(0.1, ge=0)


class DDIS(Method):
    Settings = DDISSettings
    prior = "coefficient"
    uses_operator = True
    tuned = "weight"

    def sample(self, task: Task) -> Iterator[State]:
        s = self.settings
        assert isinstance(s, DDISSettings)
        likelihood = LangevinStep(task, number(s.weight), s.tau, s.langevin_steps, s.learning_rate, s.temperature)
        yield from anneal(task, likelihood, karras_schedule(s.sigma_max, s.sigma_min, s.steps), s.ode_steps)
