"""A problem, a sampler and an observation operator that live outside the package, each one class; used by test_extension.py."""

from collections.abc import Iterator

import torch

from ddis.observe.base import Functionals, Sensors
from ddis.pde.dirichlet import laplacian, solve_dirichlet
from ddis.pde.poisson import Poisson, PoissonParameters
from ddis.sampling.base import Batch, Method, RunSettings, State


class ScreenedParameters(PoissonParameters):
    """screening: c in ∇²u - c u = a."""

    screening: float = 10.0


class Screened(Poisson):
    """∇²u - c u = a, u = 0 on the boundary."""

    Parameters = ScreenedParameters
    equation = "∇²u - c u = a in (0, 1)²"

    def solve(self, coefficient):
        return solve_dirichlet(coefficient, shift=-self.parameters.screening)

    def residual(self, coefficient, solution):
        return laplacian(solution) - self.parameters.screening * solution[..., 1:-1, 1:-1] - coefficient[..., 1:-1, 1:-1]


class DrawSettings(RunSettings):
    """scale: standard deviation of the draws, relative to the prior's."""

    scale: float = 1.0


class PriorDraw(Method[DrawSettings]):
    """Draws from the Gaussian prior and ignores the observations."""

    Settings = DrawSettings
    prior = None

    def sample(self, batch: Batch, prepared: None) -> Iterator[State]:
        draw = batch.basis.inverse(batch.spectrum.sqrt() * batch.draw_white(*batch.shape)) * self.settings.scale
        yield State(1, 1, 0.0, draw.to(torch.float32))


class Diagonal(Sensors):
    """Values at the nodes (i, i)."""

    @classmethod
    def of_settings(cls, settings):
        return cls(settings.noise, settings.assumed_noise)

    def functionals(self, grid):
        size = grid.shape[0]
        return Functionals(torch.arange(size)[:, None] * (size + 1), None, size**2)
