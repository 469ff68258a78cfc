"""`ddis`: the paper's sampler. DAPS on the coefficient prior, Langevin steps through the neural operator.

Source: DDIS, arXiv 2601.23280. The published weights w are for 128 x 128 and 500 observations. There the chain may start on a
coarser grid: up-sampling of x0 after some levels, bilinear, and fresh noise of the next level on the finer grid.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from ddis.errors import InputError
from ddis.pde.base import Problem
from ddis.refusals import told
from ddis.sampling.base import Batch, ErrorChoice, Evaluations, Method, PerCase, Size, State, number
from ddis.sampling.daps import anneal
from ddis.sampling.langevin import LangevinSettings, LangevinStep
from ddis.sampling.multiresolution import coarsen, upsample
from ddis.sampling.schedules import karras_schedule


class DDISSettings(LangevinSettings):
    """Those of DAPS with Langevin steps, and the coarser grid.

    start_resolution  nodes per side of the first levels; null: those of the study
    upsample_at       levels on the coarse grid, and start_weight: w there (null: weight)
    """

    start_resolution: int | None = None
    upsample_at: int = Field(50, ge=1)
    start_weight: PerCase | None = None


class DDIS(Method[DDISSettings]):
    Settings = DDISSettings
    prior = "coefficient"
    uses_operator = True
    tuned = "weight"

    @property
    def error_model(self) -> ErrorChoice:
        return self.settings.error_model

    def with_weight(self, weight: float) -> DDISSettings:
        """That of a coarser start keeps its ratio to it."""
        s = self.settings
        ratio = {} if s.start_weight is None else {"start_weight": number(s.start_weight) * weight / number(s.weight)}
        return super().with_weight(weight).model_copy(update=ratio)

    def cost(self, size: Size) -> Evaluations:
        s = self.settings
        return Evaluations(prior=s.prior_evaluations(), operator=3 * s.steps * s.langevin_steps)

    def check(self, problem: Problem, resolution: int) -> None:
        s = self.settings
        s.check_loss()
        start = s.start_resolution
        if start is None:
            if s.start_weight is not None:
                raise InputError("start_weight: there is no coarser grid; set start_resolution, or leave it out")
            return
        if s.start_weight is not None and s.weight == 0:
            raise InputError(f"start_weight {s.start_weight} with weight 0; leave out start_weight, or set a weight above 0")
        if s.error_model != "none":
            raise InputError(f"error_model {s.error_model}: known on the data's grid only; accepted with start_resolution: none")
        if not problem.is_plain(resolution):
            raise InputError(f"start_resolution {start}: accepted for one channel on S x S nodes only; leave it out")
        if start >= resolution:
            raise InputError(f"start_resolution {start}: not coarser than the data; accepted: below {resolution}, or null")
        if s.upsample_at >= s.steps:
            raise InputError(f"upsample_at {s.upsample_at}: no step of {s.steps} is left for the fine grid; accepted: less")
        with told(f"start_resolution {start}: "):
            problem.check(start)

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        s = self.settings
        levels, begin, x0 = karras_schedule(s.sigma_max, s.sigma_min, s.steps), 0, None
        if s.start_resolution is not None:
            begin, coarse = s.upsample_at, coarsen(batch, s.start_resolution)
            weight = s.weight if s.start_weight is None else s.start_weight
            for state in anneal(coarse, LangevinStep.of(coarse, s, weight), levels, s.ode_steps, end=begin):
                yield state
            x0 = upsample(state.x0, batch.basis.shape[0], batch.basis.names[0] == "fourier")[:, None]
        yield from anneal(batch, LangevinStep.of(batch, s, s.weight), levels, s.ode_steps, begin=begin, x0=x0)
