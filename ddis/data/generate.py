"""Coefficients and their solutions, in bounded memory."""

from collections.abc import Iterator

import numpy as np
import torch

from ddis.pde.base import Problem

SPLIT_OFFSET = {"train": 0, "validation": 1, "test": 2}
_SPLIT_STRIDE = 1 << 40


def split_indices(split: str, count: int) -> np.ndarray:
    """Field indices of a split ("train", "validation", "test"); the splits never share one."""
    return SPLIT_OFFSET[split] * _SPLIT_STRIDE + np.arange(count)


@torch.no_grad()
def generate_pairs(
    problem: Problem, indices: np.ndarray, resolution: int, seed: int, chunk: int = 512
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yields chunks of (coefficient, solution) [n, S, S] float32, with the chunk's largest relative residual (float64)."""
    for start in range(0, len(indices), chunk):
        coefficient = problem.sample_coefficients(indices[start : start + chunk].tolist(), resolution, seed)
        solution = problem.solve(coefficient)
        residual = problem.residual(coefficient, solution)
        relative = float(residual.abs().max() / coefficient.abs().max())
        yield coefficient.float().numpy(), solution.float().numpy(), relative
