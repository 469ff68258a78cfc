"""The neural operator: an FNO on normalised fields, padded by reflection where the domain is bounded.

Source: Li et al., Fourier Neural Operator, arXiv 2010.08895; the architecture is neuraloperator's.
"""

import warnings

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from neuralop.layers.spectral_convolution import SpectralConv
    from neuralop.models import FNO

from ddis.data.normalisation import Normalisation
from ddis.models.settings import OperatorSettings


class HermitianSpectralConv(SpectralConv):
    """Spectral convolution on 2-D real fields whose spectrum is made Hermitian before the inverse transform.

    neuraloperator 2.0.0 hands irfftn a spectrum whose zero and Nyquist columns are not self-conjugate; what an FFT library makes
    of them is undefined, and on some GPUs shows as lines. Here an ordinary inverse transform over the first axis comes
    first; then the imaginary part of the columns that must be real is dropped; then a real transform over the last axis.
    It computes in float32 at least, under autocast too: there are no transforms in bfloat16.
    """

    def forward(self, x: Tensor, output_shape: tuple[int, ...] | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._convolve(x.float() if x.dtype == torch.bfloat16 else x)

    def _convolve(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        spectrum = torch.fft.fftshift(torch.fft.rfft2(x, norm=self.fft_norm), dim=-2)
        weight = self.weight.to_tensor() if hasattr(self.weight, "to_tensor") else self.weight
        rows, columns = min(weight.shape[-2], height), min(weight.shape[-1], spectrum.shape[-1])
        first = height // 2 - rows // 2
        skip = (weight.shape[-2] - rows) // 2
        kept = self._contract(
            spectrum[..., first : first + rows, :columns],
            weight[..., skip : skip + rows, :columns],
            separable=self.separable,
        )
        pad = (0, spectrum.shape[-1] - columns, first, height - first - rows)
        full = torch.fft.ifftshift(nn.functional.pad(kept, pad), dim=-2)
        half = torch.fft.ifft(full, dim=-2, norm=self.fft_norm)
        self_conjugate = torch.zeros(half.shape[-1], dtype=torch.bool, device=x.device)
        self_conjugate[0] = True
        if width % 2 == 0:
            self_conjugate[-1] = True
        half = torch.complex(half.real, half.imag.masked_fill(self_conjugate, 0.0))
        out = torch.fft.irfft(half, n=width, dim=-1, norm=self.fft_norm)
        return out if self.bias is None else out + self.bias


class FourierOperator(nn.Module):
    """u = G_φ(a) on physical fields [B, S, S]; differentiable with respect to a.

    Args:
        settings: size of the FNO.
        periodic: no padding.
        coefficient, solution: normalisations of the pairs that the operator was trained on.
    """

    def __init__(self, settings: OperatorSettings, periodic: bool, coefficient: Normalisation, solution: Normalisation):
        super().__init__()
        self.padding = 0.0 if periodic else settings.padding
        self.coefficient, self.solution = coefficient, solution
        self.fno = FNO(
            n_modes=(settings.modes, settings.modes),
            in_channels=1,
            out_channels=1,
            hidden_channels=settings.width,
            n_layers=settings.layers,
            conv_module=HermitianSpectralConv,
        )

    def forward_normalised(self, x: Tensor) -> Tensor:
        """Normalised solution [B, S, S] of the normalised coefficient x [B, S, S]."""
        pad = round(self.padding * x.shape[-1])
        padded = nn.functional.pad(x[:, None], (pad, pad, pad, pad), mode="reflect") if pad else x[:, None]
        out = self.fno(padded)[:, 0]
        return out[:, pad : pad + x.shape[-1], pad : pad + x.shape[-1]] if pad else out

    def forward(self, coefficient: Tensor) -> Tensor:
        return self.solution.restore(self.forward_normalised(self.coefficient.normalise(coefficient)))
