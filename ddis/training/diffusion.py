"""The diffusion prior: a denoiser with EDM preconditioning, trained by denoising score matching."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ddis.training.sections import PriorSettings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ddis.fields.noise import Noise
    from ddis.grid import Grid
    from ddis.training.augmentation import Augmentation


class DiffusionSettings(PriorSettings):
    """A denoiser: its backbone, the distribution of ln σ in training, and the training; `at` as for an operator."""

    kind: ClassVar[str] = "denoiser"
    log_sigma_mean: float = -1.2
    log_sigma_std: float = Field(1.2, gt=0)

    def build(self, channels: int, grid: "Grid", coordinates: bool = False) -> "nn.Module":
        from ddis.models.edm import EDMDenoiser

        return EDMDenoiser(self.build_backbone(channels, grid, coordinates))

    def training_loss(
        self,
        network: "nn.Module",
        data: "Tensor",
        noise: "Noise",
        seed: int,
        first: int,
        augmentation: "Augmentation | None" = None,
    ) -> "Callable[[np.ndarray, int], Tensor]":
        from ddis.training import denoising

        return denoising.training_loss(network, data, noise, self._log_sigma, seed, first, augmentation)

    def validation_loss(self, data: "Tensor", noise: "Noise", seed: int) -> "Callable[[nn.Module], float]":
        from ddis.training import denoising

        return denoising.validation_loss(data, noise, self._log_sigma, seed)

    @property
    def _log_sigma(self) -> tuple[float, float]:
        return self.log_sigma_mean, self.log_sigma_std
