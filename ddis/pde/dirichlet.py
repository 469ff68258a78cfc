"""The 5-point Laplacian with u = 0 on the boundary, and its direct solver: shared by the problems with Dirichlet boundaries.

Grid: S x S nodes, boundary included, h = 1/(S-1), so M = S - 2 interior nodes per axis. The Laplacian is diagonal in the sine
basis, with eigenvalues λ_m + λ_n, λ_m = -4/h² sin²(π m h / 2). At these sizes products with the sine matrix are faster than a
fast transform (S = 128 means a transform of length 254 = 2 x 127), differentiable, and run on every device.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ddis.fields.bases import sine_matrix


def _padded(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix [M, M] with zeros up to the next multiple of 16.

    Fields of a batch are then aligned alike, without which products differ in the last bit with the place in the batch.
    """
    missing = -matrix.shape[-1] % 16
    return torch.nn.functional.pad(matrix, (0, missing, 0, missing)).to(device, dtype)


@lru_cache(maxsize=16)
def sine_modes(interior: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Orthonormal, symmetric sine matrix of the M interior nodes, padded."""
    return _padded(torch.from_numpy(sine_matrix(interior)), dtype, device)


@lru_cache(maxsize=16)
def laplacian_eigenvalues(interior: int) -> Tensor:
    """Eigenvalues [M, M] (float64, negative) of the 5-point Laplacian on M interior nodes per axis."""
    m = torch.arange(1, interior + 1, dtype=torch.float64)
    axis = -4 * (interior + 1) ** 2 * torch.sin(torch.pi * m / (2 * (interior + 1))) ** 2
    return axis[:, None] + axis[None, :]


@lru_cache(maxsize=16)
def inverse_eigenvalues(interior: int, shift: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 / (λ + shift), padded."""
    return _padded(1 / (laplacian_eigenvalues(interior) + shift), dtype, device)


def chunks(fields: Tensor) -> Iterator[slice]:
    """Parts of fields [N, S, S] that are solved at once, so that memory does not grow with N.

    On a CPU 256 KiB of them, which stay in a core's cache: two fields at S = 128, measured 30 % faster than sixteen.
    """
    bytes_at_once = 1 << (18 if fields.device.type == "cpu" else 26)
    step = max(1, bytes_at_once // (8 * fields.shape[-1] ** 2))
    for start in range(0, len(fields), step):
        yield slice(start, start + step)


def solve_interior(source: Tensor, shift: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """u [B, M, M] of (Δ_h + shift) u = source [B, M, M] at the interior nodes, computed in `dtype`."""
    batch, interior = source.shape[0], source.shape[-1]
    sine = sine_modes(interior, dtype, source.device)
    field = source.new_zeros(batch, *sine.shape, dtype=dtype)
    field[:, :interior, :interior] = source
    sine = sine.expand_as(field)
    coefficients = torch.bmm(sine, torch.bmm(field, sine))
    coefficients *= inverse_eigenvalues(interior, shift, dtype, source.device)
    return torch.bmm(sine, torch.bmm(coefficients, sine))[:, :interior, :interior]


class _Solve(torch.autograd.Function):
    """The operator is symmetric, so the gradient is one more solve; nothing is kept for it."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, shift: float) -> Tensor:
        ctx.shift = shift
        solution = torch.zeros_like(source)
        for part in chunks(source):
            solution[part, 1:-1, 1:-1] = solve_interior(source[part, 1:-1, 1:-1], shift)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Solve.apply(gradients[0], ctx.shift), None


def solve_dirichlet(source: Tensor, shift: float = 0.0) -> Tensor:
    """Solves (Δ_h + shift) u = source at the interior nodes, u = 0 on the boundary nodes.

    Direct, by diagonalisation in the sine basis: two products with the sine matrix there and two back, in float64.

    Args:
        source: [..., S, S]; its boundary nodes are not used.
        shift: k² of the Helmholtz equation; -shift must not be an eigenvalue of Δ_h.

    Returns:
        u [..., S, S], in the dtype and on the device of `source`; differentiable, any number of times.
    """
    size = source.shape[-1]
    solution: Tensor = _Solve.apply(source.reshape(-1, size, size), shift)
    return solution.reshape(source.shape)


def laplacian(field: Tensor) -> Tensor:
    """5-point Laplacian [..., S-2, S-2] of a field [..., S, S] at the interior nodes, h = 1/(S-1)."""
    centre = field[..., 1:-1, 1:-1]
    neighbours = field[..., 2:, 1:-1] + field[..., :-2, 1:-1] + field[..., 1:-1, 2:] + field[..., 1:-1, :-2]
    return (neighbours - 4 * centre) * (field.shape[-1] - 1) ** 2


def zero_boundary(field: Tensor) -> Tensor:
    """The field [..., S, S] with its boundary nodes set to zero."""
    return torch.nn.functional.pad(field[..., 1:-1, 1:-1], (1, 1, 1, 1))


def extend_interior(field: Tensor) -> Tensor:
    """The field [..., S, S] with every boundary node set to the value of the interior node next to it (zero normal slope)."""
    size = field.shape[-1]
    node = torch.arange(size, device=field.device).clamp(1, size - 2)
    return field[..., node[:, None], node]
