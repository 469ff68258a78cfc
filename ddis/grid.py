"""Grids of nodes and the spaces of fields on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddis.errors import InputError
from ddis.fields.bases import Basis, basis

if TYPE_CHECKING:
    from torch import Tensor

Nodes = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Grid:
    """Nodes of a line or a rectangle, [i, j] at x = i * spacing[0], y = j * spacing[1], or of a part of it.

    shape     nodes per axis, one or two axes
    periodic  of each axis; a periodic axis has its nodes at i L / S, any other at i L / (S - 1)
    lengths   L of each axis
    mask      the nodes that belong to the domain, its boundary included; None: all. Fields are 0 at the others
    names     of the axes
    free_ends whether the ends of bounded axes are like other nodes, such as the first and the last time, and no boundary
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    lengths: tuple[float, ...]
    mask: Nodes | None = None
    names: tuple[str, ...] = ("x", "y")
    free_ends: bool = False

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 2) or not len(self.shape) == len(self.periodic) == len(self.lengths):
            raise InputError(f"grid of {self.shape} nodes, lengths {self.lengths}; accepted: one or two axes, a length for each")
        if self.mask is not None and (self.mask.shape != self.shape or not self.mask.any()):
            raise InputError(f"mask of shape {self.mask.shape} on a grid of {self.shape} nodes; accepted: that shape, not empty")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring nodes along each axis."""
        axes = zip(self.lengths, self.shape, self.periodic, strict=True)
        return tuple(length / (size if wraps else size - 1) for length, size, wraps in axes)

    @property
    def basis(self) -> Basis:
        """Fourier modes along periodic axes, cosines along others; of a masked grid that of its rectangle."""
        return basis(tuple("fourier" if wraps else "cosine" for wraps in self.periodic), self.shape, self.lengths)

    @property
    def nodes(self) -> Nodes:
        """Which nodes belong to the domain [*shape]."""
        return np.ones(self.shape, dtype=bool) if self.mask is None else self.mask

    @property
    def interior(self) -> Nodes:
        """Nodes of the domain off its boundary, where fields may be given: all neighbours, diagonal ones too, belong to it."""
        inside = self.nodes
        for axis, wraps in enumerate(self.periodic):
            inside = inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
            if not wraps and not self.free_ends:
                np.moveaxis(inside, axis, 0)[[0, -1]] = False
        return inside

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes that the grid has."""
        return self.names[: len(self.shape)]

    def cells(self, points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Lower corner [m, d] of the cell that each of the points [m, d] lies in, and the fraction [m, d] of the cell.

        On periodic axes the last cell ends at the first node. Points outside get a cell at the edge.
        """
        last = np.array(self.shape) - 1 + np.array(self.periodic)
        place = points / np.array(self.lengths) * last
        nearest = np.round(place)
        place = np.where(np.abs(place - nearest) < 1e-6, nearest, place)  # so that a node is a node
        lower = np.clip(np.floor(place).astype(np.int64), 0, last - 1)
        return lower, place - lower

    def corners(self, points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Flat nodes [m, 2^d] at the corners of the cells of points [m, d], and their weights in a linear interpolation."""
        lower, part = self.cells(points)
        shifts = np.array(list(product((0, 1), repeat=len(self.shape))))
        places = (lower[:, None] + shifts) % self.shape
        weights = np.where(shifts, part[:, None], 1 - part[:, None]).prod(axis=-1)
        return np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), self.shape), weights

    def contains(self, points: NDArray[np.float64]) -> Nodes:
        """Whether points [m, d] lie in the domain, of a masked one between nodes that all belong to it."""
        beyond = (points < 0) | (points > np.array(self.lengths) * (1 + 1e-9))
        nodes, weights = self.corners(np.where(beyond, 0.0, points))
        found: Nodes = ~beyond.any(axis=1) & (self.nodes.flatten()[nodes] | (weights == 0)).all(axis=1)
        return found

    @property
    def sides(self) -> list[Nodes]:
        """The sides of the boundary, each the nodes [*shape] on it: the ends of bounded axes; of a masked grid also the rest."""
        ends = []
        for axis, wraps in enumerate(self.periodic):
            for end in () if wraps or self.free_ends else (0, -1):
                side = np.zeros(self.shape, dtype=bool)
                np.moveaxis(side, axis, 0)[end] = True
                ends.append(side & self.nodes)
        rest = self.nodes & ~self.interior
        for side in ends:
            rest = rest & ~side
        return [side for side in [*ends, rest] if side.any()]

    def coordinates(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates of the nodes along each axis."""
        return tuple(step * np.arange(size, dtype=np.float64) for size, step in zip(self.shape, self.spacing, strict=True))

    def __str__(self) -> str:
        return " x ".join(map(str, self.shape))


@lru_cache(maxsize=32)
def square(size: int, periodic: bool = False) -> Grid:
    """S x S nodes on the unit square."""
    return Grid((size, size), (periodic, periodic), (1.0, 1.0))


@dataclass(frozen=True)
class Space:
    """Fields of one or several channels on a grid: arrays [..., *shape]."""

    grid: Grid
    channels: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one field: the grid's, with the channels before it where there are several."""
        return self.grid.shape if self.channels == 1 else (self.channels, *self.grid.shape)

    def differs(self, other: Space) -> str | None:
        """The first of nodes, lengths and so on in which the two differ, as `name own, not other`; None: they are the same."""
        own, others = self.describe(), other.describe()
        for name, value in own.items():
            if value != others[name]:
                return f"{name} {value}, not {others[name]}"
        return None if np.array_equal(self.grid.nodes, other.grid.nodes) else "another mask"

    def describe(self) -> dict[str, Any]:
        """As JSON, without the mask; `described` is the way back."""
        grid = self.grid
        axes = {"nodes": grid.shape, "periodic": grid.periodic, "lengths": grid.lengths, "names": grid.names}
        return axes | {"channels": self.channels}

    def channelled(self, fields: Tensor) -> Tensor:
        """Fields [N, *shape] as [N, C, *nodes], also where C is 1."""
        return fields.reshape(len(fields), self.channels, *fields.shape[fields.ndim - len(self.grid.shape) :])


def split(x: Tensor, spaces: tuple[Space, Space]) -> tuple[Tensor, Tensor]:
    """The two fields [B, *shape] of joint ones [B, C, *nodes], whose channels are those of the first, then of the second."""
    first, second = x.split([space.channels for space in spaces], dim=1)
    return first.reshape(len(x), *spaces[0].shape), second.reshape(len(x), *spaces[1].shape)


def described(space: Mapping[str, Any], mask: Nodes | None = None) -> Space:
    """The space of `Space.describe`."""
    shape, periodic, lengths, names = (tuple(space[key]) for key in ("nodes", "periodic", "lengths", "names"))
    return Space(Grid(shape, periodic, lengths, mask, names), space["channels"])
