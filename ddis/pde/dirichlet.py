"""The 5-point Laplacian with u = 0 on the boundary, and its direct solver: shared by the problems with Dirichlet boundaries.

Grid: S x T nodes of a rectangle, boundary included, by default of the unit square; h = L/(S-1) along an axis of length L with S
nodes, of which M = S - 2 are interior. The Laplacian is diagonal in the sine basis, with eigenvalues λ_m + λ_n,
λ_m = -4/h² sin²(π m h / 2L). At these sizes products with the sine matrix are faster than a fast transform (S = 128 means a
transform of length 254 = 2 x 127), differentiable, and run on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from ddis.fields.bases import sine_matrix
from ddis.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Lengths = tuple[float, float]
UNIT = (1.0, 1.0)


def _padded(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix with zeros up to the next multiples of 16.

    Fields of a batch are then aligned alike, without which products differ in the last bit with the place in the batch.
    """
    rows, columns = (-size % 16 for size in matrix.shape)
    return torch.nn.functional.pad(matrix, (0, columns, 0, rows)).to(device, dtype)


@lru_cache(maxsize=16)
def sine_modes(interior: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Orthonormal, symmetric sine matrix of the M interior nodes, padded."""
    return _padded(torch.from_numpy(sine_matrix(interior)), dtype, device)


@lru_cache(maxsize=16)
def laplacian_eigenvalues(interior: int | tuple[int, int], lengths: Lengths = UNIT) -> Tensor:
    """Eigenvalues [M, N] (float64, negative) of the 5-point Laplacian on M x N interior nodes; a number M stands for M x M."""
    shape = (interior, interior) if isinstance(interior, int) else interior
    axes = []
    for size, length in zip(shape, lengths, strict=True):
        m = torch.arange(1, size + 1, dtype=torch.float64)
        axes.append(-4 * ((size + 1) / length) ** 2 * torch.sin(torch.pi * m / (2 * (size + 1))) ** 2)
    return axes[0][:, None] + axes[1][None, :]


@lru_cache(maxsize=16)
def inverse_eigenvalues(
    interior: tuple[int, int], lengths: Lengths, shift: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """1 / (λ + shift), padded."""
    return _padded(1 / (laplacian_eigenvalues(interior, lengths) + shift), dtype, device)


def chunks(fields: Tensor) -> Iterator[slice]:
    """Parts of fields [N, S, S] that are solved at once, so that memory does not grow with N.

    On a CPU 256 KiB of them, which stay in a core's cache: two fields at S = 128, measured 30 % faster than sixteen.
    """
    bytes_at_once = 1 << (18 if fields.device.type == "cpu" else 26)
    step = max(1, bytes_at_once // (8 * fields.shape[-2] * fields.shape[-1]))
    for start in range(0, len(fields), step):
        yield slice(start, start + step)


def solve_interior(source: Tensor, dtype: torch.dtype, shift: float = 0.0, lengths: Lengths = UNIT) -> Tensor:
    """u [B, M, N] of (Δ_h + shift) u = source [B, M, N] at the interior nodes, computed in `dtype`."""
    batch, m, n = source.shape
    left, right = (sine_modes(size, dtype, source.device) for size in (m, n))
    field = source.new_zeros(batch, len(left), len(right), dtype=dtype)
    field[:, :m, :n] = source
    left, right = left.expand(batch, -1, -1), right.expand(batch, -1, -1)
    coefficients = torch.bmm(left, torch.bmm(field, right))
    coefficients *= inverse_eigenvalues((m, n), lengths, shift, dtype, source.device)
    return torch.bmm(left, torch.bmm(coefficients, right))[:, :m, :n]


@cache
def _differentiable_solve() -> type[torch.autograd.Function]:
    """The operator is symmetric, so the gradient is one more solve; nothing is kept for it."""

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, source: Tensor, shift: float, lengths: Lengths) -> Tensor:
            ctx.constants = shift, lengths
            solution = torch.zeros_like(source)
            for part in chunks(source):
                solution[part, 1:-1, 1:-1] = solve_interior(source[part, 1:-1, 1:-1], torch.float64, shift, lengths)
            return solution

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
            return Solve.apply(gradients[0], *ctx.constants), None, None

    return Solve


def solve_dirichlet(source: Tensor, shift: float = 0.0, lengths: Lengths = UNIT) -> Tensor:
    """Solves (Δ_h + shift) u = source at the interior nodes, u = 0 on the boundary nodes.

    Direct, by diagonalisation in the sine basis: two products with the sine matrix there and two back, in float64.

    Args:
        source: [..., S, T]; its boundary nodes are not used.
        shift: k² of the Helmholtz equation; -shift must not be an eigenvalue of Δ_h.
        lengths: of the sides of the rectangle.

    Returns:
        u [..., S, T], in the dtype and on the device of `source`; differentiable, any number of times.
    """
    solution: Tensor = _differentiable_solve().apply(source.reshape(-1, *source.shape[-2:]), shift, lengths)
    return solution.reshape(source.shape)


def laplacian(field: Tensor, lengths: Lengths = UNIT) -> Tensor:
    """5-point Laplacian [..., S-2, T-2] of a field [..., S, T] at the interior nodes."""
    x, y = ((size - 1) / length for size, length in zip(field.shape[-2:], lengths, strict=True))
    ratio = (x / y) ** 2
    centre = field[..., 1:-1, 1:-1]
    neighbours = ratio * (field[..., 2:, 1:-1] + field[..., :-2, 1:-1]) + field[..., 1:-1, 2:] + field[..., 1:-1, :-2]
    return (neighbours - 2 * (ratio + 1) * centre) * y**2


def zero_boundary(field: Tensor) -> Tensor:
    """The field [..., S, T] with its boundary nodes set to zero."""
    return torch.nn.functional.pad(field[..., 1:-1, 1:-1], (1, 1, 1, 1))


def extend_interior(field: Tensor) -> Tensor:
    """The field [..., S, T] with every boundary node set to the value of the interior node next to it (zero normal slope)."""
    row, column = (torch.arange(size, device=field.device).clamp(1, size - 2) for size in field.shape[-2:])
    return field[..., row[:, None], column]
