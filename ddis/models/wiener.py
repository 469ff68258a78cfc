"""A network that learns what the best linear denoiser leaves.

EDM's skip c_skip x_t is the best multiple of x_t, as if all modes of the field had the same variance. The Wiener filter is the
best linear function of x_t, mode by mode: for a Gaussian field it is the optimal denoiser, and nothing is left to learn.
"""

import torch
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.grid import Grid
from ddis.models.denoiser import SIGMA_DATA, per_field
from ddis.models.edm import same_shape


class WienerDenoiser(nn.Module):
    """D(x; σ) = W x + c_out F(c_1 (x - W x), c_2 x, ln(σ)/4) around a backbone F, of normalised fields x [B, C, *nodes].

    W x = m + S / (S + σ² Γ) (x - m), mode by mode, with m the mean field, S and Γ the variances of the field's and the noise's
    modes; x - W x is the noise that the filter finds. F is given both, of variance 1 as its target is, means over the nodes:

        c_out² = mean of S σ² Γ / (S + σ² Γ),     1 / c_1² = mean of (σ² Γ)² / (S + σ² Γ),     1 / c_2² = σ² + σ_d²

    backbone: of 2 C channels; the first C that it makes are F.
    mean, spectrum  m and S [C, *nodes]; noise_spectrum: Γ [*nodes]. `fit` sets them; training leaves them as they are.
    """

    mean: Tensor
    spectrum: Tensor
    noise_spectrum: Tensor

    def __init__(self, backbone: nn.Module, channels: int, grid: Grid):
        super().__init__()
        self.backbone, self.basis = backbone, grid.basis
        self.register_buffer("mean", torch.zeros(channels, *grid.shape))
        self.register_buffer("spectrum", torch.ones(channels, *grid.shape))
        self.register_buffer("noise_spectrum", torch.ones(grid.shape))

    def fit(self, mean: Tensor, spectrum: Tensor, noise_spectrum: Tensor) -> None:
        """Takes the mean field, and variances of modes, of the training fields and of the noise that they are mixed with."""
        self.mean.copy_(mean)
        self.spectrum.copy_(spectrum)
        self.noise_spectrum.copy_(noise_spectrum)

    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        if x_t.shape[2:] != self.noise_spectrum.shape:
            given, own = (" x ".join(map(str, shape)) for shape in (x_t.shape[2:], self.noise_spectrum.shape))
            raise InputError(
                f"fields of {given} nodes; a prior with preconditioning: wiener accepts those of its training, {own}"
            )
        gain, left, found = self._filter(sigma, x_t)
        mean = self.mean.to(x_t)
        filtered = mean + self.basis.inverse(gain * self.basis.forward(x_t - mean))
        scaled = x_t * (per_field(sigma.to(x_t), x_t) ** 2 + SIGMA_DATA**2).rsqrt()
        known = torch.cat([(x_t - filtered) * found.rsqrt(), scaled], dim=1)
        out = same_shape(self.backbone(known, sigma.log() / 4), known)
        return filtered + left.sqrt() * out[:, : x_t.shape[1]]

    def loss_weight(self, sigma: Tensor, x: Tensor) -> Tensor:
        """1 / c_out² [B, C, 1, ...] at levels sigma [B] of fields x [B, C, *nodes]."""
        return self._filter(sigma, x)[1].reciprocal()

    def _filter(self, sigma: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """S / (S + σ² Γ) [B, C, *nodes], and the variances c_out² and 1 / c_1² [B, C, 1, ...]."""
        field, noise = self.spectrum.to(x), per_field(sigma.to(x), x) ** 2 * self.noise_spectrum.to(x)
        total, axes = field + noise, tuple(range(2, x.ndim))
        gain = field / total
        return gain, (gain * noise).mean(dim=axes, keepdim=True), (noise**2 / total).mean(dim=axes, keepdim=True)
