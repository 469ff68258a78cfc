"""A chain that starts on a coarser grid: the same batch there, and the way back.

The grids share the ends of a bounded domain, x = i/(S-1), and the node 0 of a periodic one, x = i/S; between nodes fields are
bilinear. On the coarse grid the diffusion's noise has the same kernel (its length is in units of the domain), prior and operator
are the same networks (or the same solver), and the operator's solution is compared with the observations where these are:
interpolated to the fine grid, of which they are nodes. So the data is used as it is.

Networks take any grid, but know their own best: at half the resolution, 16 nodes instead of 32, the quickstart's prior has up to
1.4 times the squared error of the optimal denoiser (at 32: 1.03), and its operator an error of 10 % (at 32: 1.7 %).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ddis.fields.bases import basis
from ddis.grid import Space, square
from ddis.lazy import torch
from ddis.sampling.base import Batch

if TYPE_CHECKING:
    from torch import Tensor


def linear_interpolation(coarse: int, fine: int, periodic: bool) -> np.ndarray:
    """Matrix [fine, coarse] from values at the nodes of a coarse axis to those of a fine one, linear in between."""
    place = np.arange(fine) * coarse / fine if periodic else np.linspace(0, coarse - 1, fine)
    lower = np.minimum(place.astype(int), coarse - 1)
    upper = (lower + 1) % coarse if periodic else np.minimum(lower + 1, coarse - 1)
    matrix = np.zeros((fine, coarse))
    np.add.at(matrix, (np.arange(fine), lower), 1 - (place - lower))
    np.add.at(matrix, (np.arange(fine), upper), place - lower)
    return matrix


def upsample(field: Tensor, size: int, periodic: bool) -> Tensor:
    """Fields [..., S, S] of fields on a coarser grid, bilinear; differentiable."""
    matrix = torch.from_numpy(linear_interpolation(field.shape[-1], size, periodic)).to(field)
    return matrix @ field @ matrix.T


def coarsen(batch: Batch, size: int) -> Batch:
    """The batch of the same chains on S = `size` nodes per side, observed at the nodes of the fine grid."""
    fine, name = batch.basis.shape[0], batch.basis.names[0]
    periodic = name == "fourier"
    return dataclasses.replace(
        batch,
        basis=basis(name, size),
        spaces=(Space(square(size, periodic)),) * 2,
        noise=batch.noise.resized(size),
        operator=lambda x: upsample(batch.operator(x), fine, periodic),
        coefficient=lambda x: upsample(batch.coefficient(x), fine, periodic),
    )
