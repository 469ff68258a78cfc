"""The diffusion prior: a network as a denoiser, trained by denoising score matching."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ddis.training.sections import PriorSettings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ddis.fields.noise import Noise
    from ddis.grid import Grid
    from ddis.training.augmentation import Augmentation


class DiffusionSettings(PriorSettings):
    """A denoiser: its backbone, the distribution of ln σ in training, and the training; `at` as for an operator.

    preconditioning: what the backbone stands in: EDM's multiples of x_t, or the Wiener filter of the training fields.
    """

    kind: ClassVar[str] = "denoiser"
    log_sigma_mean: float = -1.2
    log_sigma_std: float = Field(1.2, gt=0)
    preconditioning: Literal["edm", "wiener"] = Field("edm", exclude_if=lambda preconditioning: preconditioning == "edm")

    def build(self, channels: int, grid: "Grid", coordinates: bool = False, coarse: "Grid | None" = None) -> "nn.Module":
        from ddis.models.edm import EDMDenoiser
        from ddis.models.wiener import WienerDenoiser

        backbone = self.build_backbone(channels, grid, coordinates)
        grids = (grid,) if coarse is None else (grid, coarse)
        return WienerDenoiser(backbone, channels, *grids) if self.filters else EDMDenoiser(backbone)

    def fit(self, network: "nn.Module", fields: "Callable[[Grid], Iterable[Tensor]]", noise: "Callable[[Grid], Noise]") -> None:
        from ddis.models.wiener import WienerDenoiser
        from ddis.priors.gaussian import moments

        if not isinstance(network, WienerDenoiser):
            return
        for grid in network.grids:
            mean, spectrum = moments(grid.basis.forward(block.double()) for block in fields(grid))
            network.fit(grid, grid.basis.inverse(mean), spectrum, noise(grid).spectrum(grid.basis).to(spectrum))

    @property
    def filters(self) -> bool:
        return self.preconditioning == "wiener"

    def versioned(self) -> dict[str, type]:
        return super().versioned() | ({self.preconditioning: type(self)} if self.filters else {})

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
