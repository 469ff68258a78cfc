"""neuraloperator's networks as they are computed here: with spectral convolutions and products over channels of our own."""

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import lru_cache, partial
from io import StringIO
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddis.lazy import quick_imports
from ddis.models.layers import PointwiseConv

NOT_NEEDED = "scipy.io", "scipy.optimize", "scipy.special"  # by what tensorly is used for
with warnings.catch_warnings(), quick_imports(bare="neuralop", later=NOT_NEEDED, without="wandb"):
    warnings.simplefilter("ignore")
    from neuralop.layers.fno_block import FNOBlocks
    from neuralop.layers.spectral_convolution import SpectralConv
    from neuralop.models import FNO, UNO


class Transforms(NamedTuple):
    """Matrices of the discrete Fourier transform between nodes [.., H, W] and the modes kept, rows x columns; a line has one row.

    analyse  real [W, 2C] (real parts, then imaginary parts of C columns) and complex [R, H]: frequencies 0 to C - 1 of the last
             axis, -(R // 2) to R - R // 2 - 1 of the one before; divided by H W
    compose  complex [H, R] and real [2C, W]: the inverse, which gives the real field of these modes and their conjugates
    """

    analyse: tuple[Tensor, Tensor]
    compose: tuple[Tensor, Tensor]


@lru_cache(maxsize=64)
def transforms(height: int, width: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Transforms:
    """The matrices for fields of one size, computed in double precision."""
    frequencies = torch.arange(rows, dtype=torch.float64) - rows // 2
    along = 2j * torch.pi / height * frequencies[:, None] * torch.arange(height, dtype=torch.float64)
    across = 2 * torch.pi / width * torch.arange(width, dtype=torch.float64)[:, None] * torch.arange(columns)
    parts = torch.cat([across.cos(), -across.sin()], dim=1)
    # A column and its conjugate give the same real field; those of frequency 0 and width / 2 are their own conjugates.
    count = torch.full((columns,), 2.0, dtype=torch.float64)
    count[0] = 1.0
    if 2 * (columns - 1) == width:
        count[-1] = 1.0
    complex_dtype = dtype.to_complex()
    return Transforms(
        analyse=((parts / width).to(device, dtype), (torch.exp(-along) / height).to(device, complex_dtype)),
        compose=(
            torch.exp(along).T.contiguous().to(device, complex_dtype),
            (parts * count.repeat(2)).T.contiguous().to(device, dtype),
        ),
    )


class HermitianSpectralConv(SpectralConv):
    """Spectral convolution on real fields of one or two axes that computes the modes it keeps, and no others, by matrix products.

    neuraloperator 2.0.0 hands irfftn a spectrum whose zero and Nyquist columns are not self-conjugate; what an FFT library makes
    of them is undefined, and on some GPUs shows as lines. A product with cosines and sines is real whatever the spectrum is. It
    is also quicker than a fast transform of all modes, where few of them are kept.
    It computes in float32 at least, under autocast too: there are no complex products in bfloat16. With `output_shape`, or a
    `resolution_scaling_factor`, it gives the same function on other nodes; the library, which does not move negative frequencies
    to where they are on the other grid, gives another one.
    """

    def forward(self, x: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        nodes = tuple(x.shape[2:])
        if output_shape is not None:
            nodes = tuple(output_shape)
        elif self.resolution_scaling_factor is not None:
            nodes = tuple(round(size * scale) for size, scale in zip(nodes, self.resolution_scaling_factor, strict=True))
        with torch.autocast(x.device.type, enabled=False):
            return self._convolve(x.float() if x.dtype == torch.bfloat16 else x, nodes)

    def _convolve(self, x: Tensor, nodes: tuple[int, ...]) -> Tensor:
        weight = self.weight_tensor()
        if x.ndim == 3:
            out = self._product(x[..., None, :], weight[..., None, :], (1, *nodes))[..., 0, :]
        else:
            out = self._product(x, weight, nodes)
        return out if self.bias is None else out + self.bias

    def _product(self, x: Tensor, weight: Tensor, nodes: tuple[int, ...]) -> Tensor:
        before = tuple(x.shape[-2:])
        rows, columns = (min(axis) for axis in zip(weight.shape[-2:], *(_modes(*size) for size in (before, nodes)), strict=True))
        skip = (weight.shape[-2] - rows) // 2
        (analyse, _), (_, compose) = (transforms(*size, rows, columns, x.dtype, x.device) for size in (before, nodes))
        spectrum = analyse[1] @ torch.complex(*(x @ analyse[0]).chunk(2, dim=-1))
        kept = self.multiply(spectrum, weight[..., skip : skip + rows, :columns])
        half = compose[0] @ kept
        return torch.cat([half.real, half.imag], dim=-1) @ compose[1]

    def weight_tensor(self) -> Tensor:
        """Weights [I, O, *modes]."""
        return self.weight.to_tensor() if hasattr(self.weight, "to_tensor") else self.weight

    def multiply(self, spectrum: Tensor, weight: Tensor) -> Tensor:
        """The spectrum [B, O, R, C] of the output from that of the input [B, I, R, C], with weights of these modes."""
        return products_by_mode(spectrum, weight)


class LowRankSpectralConv(HermitianSpectralConv):
    """A spectral convolution whose weights are a Tucker decomposition: a core, and a factor for each axis.

    They are never multiplied out: the factors of the channels are applied to the spectra, so that the products by mode are of
    the core's channels.
    """

    def weight_tensor(self) -> Tensor:
        """Weights of the core's channels [F, G, *modes]."""
        weight, factors = self.weight.decomposition
        for factor in factors[2:]:  # of the modes: each puts its axis last
            weight = torch.tensordot(weight, factor, dims=([2], [1]))
        return weight

    def multiply(self, spectrum: Tensor, weight: Tensor) -> Tensor:
        into, out = self.weight.factors[0], self.weight.factors[1]
        inner = (into.T @ spectrum.flatten(2)).unflatten(2, spectrum.shape[2:])
        product = products_by_mode(inner, weight)
        return (out @ product.flatten(2)).unflatten(2, product.shape[2:])


def spectral_conv(inputs: int, outputs: int, modes: Sequence[int], rank: float) -> HermitianSpectralConv:
    """With so many modes per axis; rank: of the weights' numbers, the share that a Tucker decomposition keeps, 1 for all."""
    if rank == 1:
        return HermitianSpectralConv(inputs, outputs, tuple(modes))
    return LowRankSpectralConv(inputs, outputs, tuple(modes), rank=rank, factorization="ComplexTucker")


def products_by_mode(spectrum: Tensor, weight: Tensor) -> Tensor:
    """[B, O, R, C] of a spectrum [B, I, R, C] and weights [I, O, R, C]: sum over I for every mode.

    Modes are put first in memory, and so are those of the gradient: torch multiplies matrices that are not contiguous one by one.
    """
    modes_first = (part.flatten(2).permute(2, 0, 1).contiguous() for part in (spectrum, weight))
    product = torch.bmm(*modes_first)
    if product.requires_grad:
        product.register_hook(Tensor.contiguous)
    return product.permute(1, 2, 0).contiguous().view(len(spectrum), weight.shape[1], *spectrum.shape[2:])


def _modes(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the modes of a real field."""
    return height, width // 2 + 1


def use_pointwise_products(module: nn.Module) -> None:
    """Replaces every Conv1d of kernel size 1 below `module` by a PointwiseConv with the same parameters and names."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv1d) and child.kernel_size == (1,):
            product = PointwiseConv(child.in_channels, child.out_channels, 1, bias=child.bias is not None, device="meta")
            product.weight, product.bias = child.weight, child.bias
            setattr(module, name, product)
        else:
            use_pointwise_products(child)


def fno(channels: int, outputs: int, axes: int, modes: int, width: int, layers: int) -> nn.Module:
    """neuraloperator's FNO: `channels` to `outputs` channels on a number of axes."""
    sizes = {"in_channels": channels, "out_channels": outputs, "hidden_channels": width, "n_layers": layers}
    network: nn.Module = FNO(n_modes=(modes,) * axes, conv_module=HermitianSpectralConv, **sizes)
    use_pointwise_products(network)
    return network


def uno(channels: int, outputs: int, axes: int, width: int, layers: Sequence[tuple[int, int, float]]) -> nn.Module:
    """neuraloperator's UNO: `channels` to `outputs` channels on a number of axes; layers: channels, modes and scaling of each."""
    with redirect_stdout(StringIO()):  # it prints what it is made of
        network: nn.Module = UNO(
            in_channels=channels,
            out_channels=outputs,
            hidden_channels=width,
            lifting_channels=2 * width,
            projection_channels=2 * width,
            n_layers=len(layers),
            uno_out_channels=[out for out, _, _ in layers],
            uno_n_modes=[[modes] * axes for _, modes, _ in layers],
            uno_scalings=[[scale] * axes for _, _, scale in layers],
            channel_mlp_skip="linear",
            operator_block=partial(FNOBlocks, conv_module=HermitianSpectralConv),
        )
    use_pointwise_products(network)
    return network
