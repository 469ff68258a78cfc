"""The flow prior: a velocity field that carries noise to (coefficient, solution), trained by flow matching.

Source: Lipman et al., arXiv 2210.02747, eq. 22 and 23; with noise that is a random field Kerrigan et al., arXiv 2305.17209. A
field x_1 and noise n are joined by a straight path, and the loss is the mean over fields and nodes of |v(x_t, t) - v*|²:

    x_t = t x_1 + (1 - (1 - s) t) n,     v* = x_1 - (1 - s) n,     t uniform in [0, 1]
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ddis.settings import NoiseSettings
from ddis.training.sections import PriorSettings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ddis.fields.noise import Noise
    from ddis.grid import Grid
    from ddis.randomness import Generators
    from ddis.training.augmentation import Augmentation


class FlowNoise(NoiseSettings):
    """As published for ECI, arXiv 2412.01786: the exponential kernel, which is Matérn's of ν = 1/2."""

    length: float = Field(0.01, gt=0)


class FlowSettings(PriorSettings):
    """A velocity: its backbone, the noise of the path, s = sigma_min, what is left of it at the end; and the training."""

    kind: ClassVar[str] = "flow"
    takes: ClassVar[tuple[str, str]] = ("x_t", "t")
    gives: ClassVar[str] = "velocity"
    noise: FlowNoise = FlowNoise()
    sigma_min: float = Field(1e-4, ge=0, lt=1)

    def build(self, channels: int, grid: "Grid", coordinates: bool = False, coarse: "Grid | None" = None) -> "nn.Module":
        from ddis.models.velocity import Velocity

        return Velocity(self.build_backbone(channels, grid, coordinates))

    def training_loss(
        self,
        network: "nn.Module",
        data: "Tensor",
        noise: "Noise",
        seed: int,
        first: int,
        augmentation: "Augmentation | None" = None,
    ) -> "Callable[[np.ndarray, int], Tensor]":
        from ddis.training import noisy

        def times(generators: "Generators") -> list[float]:
            return [rng.random() for rng in generators]

        return noisy.training_loss(self.loss, network, data, noise, times, seed, "flow", first, augmentation)

    def validation_loss(self, data: "Tensor", noise: "Noise", seed: int) -> "Callable[[nn.Module], float]":
        import numpy as np

        from ddis.training import noisy

        times = (np.arange(noisy.VALIDATION_DRAWS) + 0.5) / noisy.VALIDATION_DRAWS
        return noisy.validation_loss(self.loss, data, noise, times, seed)

    def loss(self, network: "nn.Module", x_1: "Tensor", t: "Tensor", noise: "Tensor") -> "Tensor":
        """Scalar loss of a batch: x_1, noise [B, C, *nodes], t [B]."""
        from ddis.models.denoiser import per_field

        part, kept = per_field(t, x_1), 1 - self.sigma_min
        x_t = part * x_1 + (1 - kept * part) * noise
        loss: Tensor = (network(x_t, t) - (x_1 - kept * noise)).square().mean()
        return loss

    def noise_or(self, noise: NoiseSettings) -> NoiseSettings:
        """Its own, whatever the study's."""
        return self.noise
