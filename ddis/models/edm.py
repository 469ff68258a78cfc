"""A network as a denoiser.

Source: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (EDM), arXiv 2206.00364, section 5
and table 1; with noise of another spectrum than white as in FunDPS, arXiv 2505.17004.
"""

from torch import Tensor, nn

from ddis.errors import InputError
from ddis.models.denoiser import SIGMA_DATA, per_field


class EDMDenoiser(nn.Module):
    """D(x; σ) = c_skip x + c_out F(c_in x, ln(σ)/4) around a backbone F (EDM, eq. 7)."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        s = per_field(sigma.to(x_t.dtype), x_t)
        total = s**2 + SIGMA_DATA**2
        c_skip, c_out, c_in = SIGMA_DATA**2 / total, s * SIGMA_DATA / total.sqrt(), total.rsqrt()
        skip, out = c_skip * x_t, self.backbone(c_in * x_t, sigma.log() / 4)
        return skip + c_out * same_shape(out, x_t)

    def loss_weight(self, sigma: Tensor, x: Tensor) -> Tensor:
        """λ(σ) = 1 / c_out² [B, 1, ...] at levels sigma [B] of fields x [B, C, *nodes] (EDM, eq. 8)."""
        return per_field((sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2, x)


def same_shape(out: Tensor, x_t: Tensor) -> Tensor:
    """What a backbone made of x_t. Raises InputError if that has another shape."""
    if out.shape != x_t.shape:
        raise InputError(f"backbone: shape {tuple(out.shape)} from {tuple(x_t.shape)}; accepted: the same")
    return out
