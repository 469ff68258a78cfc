"""A network that learns what the best linear denoiser leaves.

EDM's skip c_skip x_t is the best multiple of x_t, as if all modes of the field had the same variance. The Wiener filter is the
best linear function of x_t, mode by mode: for a Gaussian field it is the optimal denoiser, and nothing is left to learn.
"""

import torch
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.grid import Grid
from ddis.models.denoiser import per_field
from ddis.models.edm import same_shape


class WienerDenoiser(nn.Module):
    """D(x; σ) = W x + c_out F(Z x, ln(σ)/4) around a backbone F, of normalised fields x [B, C, *nodes].

    Mode by mode, with m the mean field, S and Γ the variances of the field's and of the noise's modes:

        W x = m + S (x - m) / (S + σ² Γ),     Z x = (x - m) / sqrt(S + σ² Γ),     c_out² = mean of S σ² Γ / (S + σ² Γ)

    So the backbone's input is white, and its target has variance 1 over the nodes.

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
        total, mean = self._variance(sigma, x_t), self.mean.to(x_t)
        modes = self.basis.forward(x_t - mean)
        filtered = mean + self.basis.inverse(self.spectrum.to(x_t) / total * modes)
        white = self.basis.inverse(total.rsqrt() * modes)
        out = same_shape(self.backbone(white, sigma.log() / 4), x_t)
        return filtered + self._left(sigma, x_t).sqrt() * out

    def loss_weight(self, sigma: Tensor, x: Tensor) -> Tensor:
        """1 / c_out² [B, C, 1, ...] at levels sigma [B] of fields x [B, C, *nodes]."""
        return self._left(sigma, x).reciprocal()

    def _variance(self, sigma: Tensor, x: Tensor) -> Tensor:
        """S + σ² Γ, of the modes of noisy fields [B, C, *nodes]."""
        return self.spectrum.to(x) + per_field(sigma.to(x), x) ** 2 * self.noise_spectrum.to(x)

    def _left(self, sigma: Tensor, x: Tensor) -> Tensor:
        """c_out² [B, C, 1, ...], the variance over the nodes of what the filter leaves."""
        noise = per_field(sigma.to(x), x) ** 2 * self.noise_spectrum.to(x)
        left = self.spectrum.to(x) * noise / self._variance(sigma, x)
        return left.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
