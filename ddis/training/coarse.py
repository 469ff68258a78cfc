"""Fields on fewer nodes than they have, for networks that are trained there and used on all of them.

A network knows the number of a node, not its place. So a function must stand on both grids at places that the bases and the
networks call the same: of a periodic axis with S nodes node i is at i / S, and every r-th node is kept. Of a bounded one the
cosines take it as the middle of the cell from i / S to (i + 1) / S, and the mean of r cells is kept:

    mode k of S nodes, c, becomes mode k of S / r nodes, c / sqrt(r), of a bounded axis times sin(π k r / 2S) / (r sin(π k / 2S))

That factor is 0.92 for the middle one of the modes that S / 2 nodes carry. Every second node of a bounded axis ends before its
boundary does: on poisson an FNO trained on those of 64 nodes errs by 7.1 % on all of them, one trained on means by 4.5 %, and
one trained on fields interpolated to nodes i / (S/2 - 1) by 6.6 %; on their own nodes all of them err by 3.8 or 3.9 %
(benchmarks/coarse_training.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddis.errors import InputError
from ddis.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor


def restricted(fields: Tensor, coarse: Grid) -> Tensor:
    """Fields [..., *nodes] on the nodes of a coarser grid of the same domain; themselves if it has as many."""
    for place, (size, wraps) in enumerate(zip(coarse.shape, coarse.periodic, strict=True), -len(coarse.shape)):
        if fields.shape[place] != size:
            blocks = fields.unflatten(place, (size, -1))
            fields = blocks.select(place, 0) if wraps else blocks.mean(dim=place)
    return fields


def check_restriction(fine: Grid, coarse: Grid, ratio: int) -> None:
    """Raises InputError unless the fine grid is a whole rectangle (or line) with `ratio` times as many nodes along every axis."""
    if fine.mask is not None:
        raise InputError("its domain is a part of a rectangle, which a network knows on its own nodes only")
    if fine.shape != tuple(ratio * size for size in coarse.shape):
        raise InputError(f"its fields have {fine} nodes, which are not {ratio} times {coarse}")
