"""Convolutions with circular padding that keep the layout channels_last, which is quick on a CPU; PyTorch's own leave it."""

from typing import Any

import torch
from torch import Tensor, nn


class _Wrapped(torch.autograd.Function):
    """As `wrapped`; its gradient in one pass, and differentiable again."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        fields, channels, rows, columns = x.shape
        shape = (fields, channels, rows + 2, columns + 2)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        out[:, :, 1:-1, 1:-1] = x
        out[:, :, 0, 1:-1], out[:, :, -1, 1:-1] = x[:, :, -1], x[:, :, 0]
        out[..., 0], out[..., -1] = out[..., -2], out[..., 1]
        return out

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        rows = gradient[:, :, 1:-1].clone(memory_format=torch.channels_last)
        rows[:, :, -1] += gradient[:, :, 0]
        rows[:, :, 0] += gradient[:, :, -1]
        out = rows[..., 1:-1].clone(memory_format=torch.channels_last)
        out[..., -1] += rows[..., 0]
        out[..., 0] += rows[..., -1]
        return out


def wrapped(x: Tensor) -> Tensor:
    """Fields [B, C, H + 2, W + 2]: x [B, C, H, W], continued periodically by one node on each side."""
    out: Tensor = _Wrapped.apply(x)
    return out


def wrap(conv: nn.Conv2d) -> None:
    """Makes a convolution of 3 x 3 with circular padding wrap its input itself; what it gives stays as it is."""
    conv.padding_mode, conv.padding = "zeros", (0, 0)
    conv.register_forward_pre_hook(_wrap_input)


def _wrap_input(_conv: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    return (wrapped(given[0]),)
