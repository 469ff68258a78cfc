"""What lives outside the package, for test_extension.py: a problem, a sampler, an observation operator, an architecture of
operators and a backbone of priors."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import nn

from ddis.models.architectures import Architecture
from ddis.models.backbones import Backbone
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


class Convolutions(Architecture):
    """Two convolutions of a given width."""

    width: int = Field(4, ge=1)

    def build(self, coefficient, solution):
        first, second = (
            nn.Conv2d(coefficient.channels, self.width, 5, padding=2),
            nn.Conv2d(self.width, solution.channels, 5, padding=2),
        )
        return nn.Sequential(first, nn.GELU(), second)

    def flops(self, resolution):
        return 100 * self.width * resolution**2

    @property
    def finest(self):
        return self.width


class Leveled(nn.Module):
    """A convolution of the field and of its noise level, as another channel."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels + 1, channels, 5, padding=2)

    def forward(self, x, c_noise):
        level = c_noise[:, None, None, None].expand(len(x), 1, *x.shape[2:])
        return self.layer(torch.cat([x, level], dim=1))


class OneLayer(Backbone):
    """A backbone without settings."""

    def build(self, channels, grid):
        return Leveled(channels)

    def flops(self, resolution):
        return 50 * resolution**2

    @property
    def finest(self):
        return 1
