"""A network that learns what a linear filter leaves.

EDM's skip c_skip x_t is the best multiple of x_t, as if all modes of the field had the same variance. The Wiener filter has the
best factor for every mode. Where the modes of field and noise are independent no linear denoiser is better; and where the field
is Gaussian too, no denoiser is, so that nothing is left to learn.

On every grid the filter is another one, and the backbone's input is white on all of them. So a network that is trained on fewer
nodes has two filters; on the finer grid W is still the best linear denoiser, and what the backbone adds was learnt on the
coarse one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.grid import Grid
from ddis.models.denoiser import per_field
from ddis.models.edm import same_shape


class WienerFilter(nn.Module):
    """Of normalised fields x [B, C, *nodes] on one grid, mode by mode and channel by channel:

        W x = m + S (x - m) / (S + σ² Γ),     Z x = (x - m) / sqrt(S + σ² Γ),     c_out² = mean of S σ² Γ / (S + σ² Γ)

    with m the mean field, S and Γ the variances of the field's and of the noise's modes.

    mean, spectrum  m and S [C, *nodes]; noise_spectrum: Γ [*nodes]. `fit` sets them; training leaves them as they are.
    """

    mean: Tensor
    spectrum: Tensor
    noise_spectrum: Tensor

    def __init__(self, channels: int, grid: Grid):
        super().__init__()
        self.basis = grid.basis
        self.register_buffer("mean", torch.zeros(channels, *grid.shape))
        self.register_buffer("spectrum", torch.ones(channels, *grid.shape))
        self.register_buffer("noise_spectrum", torch.ones(grid.shape))

    def fit(self, mean: Tensor, spectrum: Tensor, noise_spectrum: Tensor) -> None:
        """Takes m, S and Γ. Raises InputError for equal fields, and for a mode that has neither field nor noise."""
        if not bool((spectrum.flatten(1) > 0).any(dim=1).all()):
            raise InputError("preconditioning: wiener: all training fields are the same; accepted: edm, or two different fields")
        if bool((spectrum + noise_spectrum == 0).any()):
            raise InputError("preconditioning: wiener: there are modes without noise; accepted: edm, or noise.nugget above 0")
        self.mean.copy_(mean)
        self.spectrum.copy_(spectrum)
        self.noise_spectrum.copy_(noise_spectrum)

    def forward(self, x_t: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """W x and Z x [B, C, *nodes], and c_out² [B, C, 1, ...]."""
        gain, total, unexplained = self._factors(sigma, x_t)
        mean = self.mean.to(x_t)
        modes = self.basis.forward(x_t - mean)
        return mean + self.basis.inverse(gain * modes), self.basis.inverse(total.rsqrt() * modes), unexplained

    def unexplained(self, sigma: Tensor, x: Tensor) -> Tensor:
        """c_out² [B, C, 1, ...]."""
        return self._factors(sigma, x)[2]

    def _factors(self, sigma: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """S / (S + σ² Γ) and S + σ² Γ [B, C, *nodes], and c_out²."""
        spectrum, noise = self.spectrum.to(x), per_field(sigma.to(x), x) ** 2 * self.noise_spectrum.to(x)
        total = spectrum + noise
        gain = spectrum / total
        return gain, total, (gain * noise).mean(dim=tuple(range(2, x.ndim)), keepdim=True)


class WienerDenoiser(nn.Module):
    """D(x; σ) = W x + c_out F(Z x, ln(σ)/4) around a backbone F, with the `WienerFilter` of the grid that x is on.

    So the modes of the backbone's input have variance 1, and so has its target, on average over the nodes.

    grids: those that it has a filter for.
    """

    def __init__(self, backbone: nn.Module, channels: int, *grids: Grid):
        super().__init__()
        self.backbone, self.grids = backbone, grids
        self.filters = nn.ModuleDict({str(grid): WienerFilter(channels, grid) for grid in grids})

    def fit(self, grid: Grid, mean: Tensor, spectrum: Tensor, noise_spectrum: Tensor) -> None:
        """Sets the filter of a grid, see `WienerFilter.fit`."""
        self._filter_of(grid.shape).fit(mean, spectrum, noise_spectrum)

    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        linear, white, unexplained = self._filter_of(x_t.shape[2:])(x_t, sigma)
        return linear + unexplained.sqrt() * same_shape(self.backbone(white, sigma.log() / 4), x_t)

    def loss_weight(self, sigma: Tensor, x: Tensor) -> Tensor:
        """1 / c_out² [B, C, 1, ...] at levels sigma [B] of fields x [B, C, *nodes]."""
        return self._filter_of(x.shape[2:]).unexplained(sigma, x).reciprocal()

    def _filter_of(self, shape: Sequence[int]) -> WienerFilter:
        """That of fields of *nodes. Raises InputError where there is none."""
        nodes = " x ".join(map(str, shape))
        if nodes not in self.filters:
            own = ", ".join(self.filters)
            raise InputError(
                f"fields of {nodes} nodes; a prior with preconditioning: wiener accepts those it has a filter for, {own}"
            )
        found = self.filters[nodes]
        assert isinstance(found, WienerFilter)
        return found
