"""What an observation operator is: m linear functionals of the coefficient or of the solution, and the noise of their values.

y_j = Σ_q w_jq f(node_jq) + e_j,  e_j ~ N(0, noise²),  f = u (the solution) or f = a (the coefficient)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from ddis.arrays import numbers
from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.grid import Grid, Space
from ddis.lazy import torch
from ddis.observe.likelihood import Likelihood

if TYPE_CHECKING:
    from torch import Tensor

Which = Literal["solution", "coefficient"]


@dataclass(frozen=True)
class Functionals:
    """P weighted sums over the nodes of a solution and of a coefficient.

    index    nodes [P, q] of the flattened solution; the coefficient's are counted on from `nodes`
    weights  [P, q], float64; None: all 1
    nodes    number of values of the solution, over its channels
    """

    index: Tensor
    weights: Tensor | None
    nodes: int

    @cached_property
    def of_coefficient(self) -> Tensor:
        """Which of them are of the coefficient, bool [P]."""
        return self.index[:, 0] >= self.nodes

    @cached_property
    def seen(self) -> tuple[bool, bool]:
        """Whether any is of the solution, and whether any is of the coefficient."""
        return not bool(self.of_coefficient.all()), bool(self.of_coefficient.any())

    def __call__(self, fields: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Values [B, P] of fields [B, ...], see `stack`; or [B, m], of the functionals chosen [B, m] alone."""
        offset = 0 if self.seen[0] else self.nodes
        if chosen is None:
            values = fields[:, self.index - offset]
            return values[..., 0] if self.weights is None else (values * self.weights.to(values)).sum(dim=-1)
        places = (self.index - offset)[chosen]
        values = fields.gather(1, places.flatten(1)).reshape(places.shape)
        return values[..., 0] if self.weights is None else (values * self.weights[chosen].to(values)).sum(dim=-1)

    def stack(self, solution: Tensor | None, coefficient: Tensor | None) -> Tensor:
        """The fields [B, *shape] that are seen, flattened one after the other."""
        return torch.cat([field.flatten(1) for field in (solution, coefficient) if field is not None], dim=1)

    def total(self) -> Tensor:
        """Sums [P] of the weights: the values of a constant field of 1."""
        return torch.ones(len(self.index), dtype=torch.float64) if self.weights is None else self.weights.sum(dim=1)

    def weights_of(self, chosen: Tensor) -> Tensor:
        """Weights [n, m, q] of the functionals chosen [n, m], float64."""
        return torch.ones_like(self.index[chosen], dtype=torch.float64) if self.weights is None else self.weights[chosen]

    def of_basis(self, basis: Basis, chosen: Tensor) -> Tensor:
        """Values [n, m, P'] of the P' basis functions of the solution, for functionals chosen [n, m]; 0 for the coefficient's."""
        places = self.index[chosen]
        inside = places < self.nodes
        weights = inside.double() if self.weights is None else self.weights[chosen] * inside
        if places.shape[-1] > 1:
            dense = weights.new_zeros(*chosen.shape, self.nodes).scatter_add_(2, places * inside, weights)
            return basis.forward(dense.reshape(*chosen.shape, *basis.shape)).flatten(2)
        functions = node_functions(basis, places[..., 0] * inside[..., 0]).flatten(2)
        return functions if bool(inside.all()) and self.weights is None else functions * weights

    def to(self, device: torch.device) -> Functionals:
        weights = None if self.weights is None else self.weights.to(device)
        return Functionals(self.index.to(device), weights, self.nodes)


def per_value(name: str, std: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Standard deviations [count] of values, from one for all or one each. Raises InputError for another number."""
    if std.shape not in ((), (1,), (count,)):
        raise InputError(f"{name} of shape {std.shape} for {count} values; accepted: one number, or one for each")
    return np.broadcast_to(std, count)


def node_functions(basis: Basis, index: Tensor) -> Tensor:
    """Values [n, m, *shape] of the basis functions at the nodes index [n, m]."""
    if len(basis.shape) == 1:
        return basis.matrices[0].to(index.device).T[index]
    rows, columns = (q.to(index.device).T for q in basis.matrices)
    return rows[index // basis.shape[1]][..., :, None] * columns[index % basis.shape[1]][..., None, :]


def joined(parts: Sequence[Functionals]) -> Functionals:
    """All functionals of the parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    most = max(part.index.shape[1] for part in parts)
    index, weights = [], []
    for part in parts:
        given = torch.ones(part.index.shape, dtype=torch.float64) if part.weights is None else part.weights
        missing = most - part.index.shape[1]
        index.append(torch.cat([part.index, part.index[:, :1].expand(-1, missing)], dim=1))
        weights.append(torch.nn.functional.pad(given, (0, missing)))
    stacked = torch.cat(weights)
    return Functionals(torch.cat(index), None if most == 1 and bool((stacked == 1).all()) else stacked, parts[0].nodes)


class SensorSettings(BaseModel):
    """What every kind of observation has in a configuration; a kind adds its own.

    kind           name of the kind, or module:Class of one outside the package
    noise          standard deviation of the simulated noise / that of the observed field, over the training split
    assumed_noise  what the likelihood takes it for; null: the same
    channel        of the observed field, where it has several; 0 is the first
    likelihood     gaussian: independent errors; mean-absolute: PosteriorBench's kernel on the mean absolute error of all values,
                   its width the noise
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    kind: str = "nodes"
    noise: float = Field(0.0, ge=0)
    assumed_noise: float | None = Field(None, ge=0)
    channel: int = Field(0, ge=0)
    likelihood: Likelihood = "gaussian"


class Sensors(ABC):
    """An observation operator. A kind says which functionals it takes; noise: standard deviation(s) of the values, in their unit.

    of, channel: the field that is observed, and which of its channels; likelihood: as of the settings.
    In a study an operator is made from its Settings, and noise is relative.
    """

    Settings: ClassVar[type[SensorSettings]] = SensorSettings
    of: Which = "solution"
    channel: int = 0
    likelihood: Likelihood = "gaussian"

    def __init__(self, noise: ArrayLike = 0.0, assumed_noise: ArrayLike | None = None):
        self.noise = numbers("noise", noise)
        self.assumed_noise = self.noise if assumed_noise is None else numbers("assumed_noise", assumed_noise)
        for name, value in (("noise", self.noise), ("assumed_noise", self.assumed_noise)):
            if not bool(np.isfinite(value).all() and (value >= 0).all()):
                raise InputError(f"{name} {value}; accepted: standard deviations, 0 or more")

    @classmethod
    @abstractmethod
    def of_settings(cls, settings: Any) -> Sensors:
        """The operator that settings of a study describe."""

    @abstractmethod
    def functionals(self, grid: Grid) -> Functionals:
        """All that might be observed of a field on `grid`. Raises InputError for what is outside it."""

    def draw(self, grid: Grid, seed: int, *field: int) -> NDArray[np.int64]:
        """Which of the functionals a field shows [m], from (seed, field) alone; all of them unless a kind says otherwise."""
        return np.arange(len(self.functionals(grid).index))

    def own_error(self, grid: Grid, fields: Tensor) -> Tensor | None:
        """Mean squared error [P] of the functionals themselves (interpolation) on fields [N, *shape]; None: they are exact."""
        return None

    def of_channel(self, channel: int) -> Sensors:
        """The same observation of another channel; 0 is the first."""
        made = copy(self)
        made.channel = channel
        return made

    def with_likelihood(self, likelihood: Likelihood) -> Sensors:
        """The same observation, asked with another likelihood in a study."""
        made = copy(self)
        made.likelihood = likelihood
        return made

    def where(self, number: int) -> str:
        """Where a value is observed, for messages."""
        return f"number {number}"

    @property
    def parts(self) -> tuple[Sensors, ...]:
        return (self,)

    def __add__(self, other: Sensors | Joined) -> Joined:
        return Joined((*self.parts, *other.parts))


@dataclass(frozen=True)
class Joined:
    """Several observation operators in one observation: their values one after the other."""

    parts: tuple[Sensors, ...]

    def __add__(self, other: Sensors | Joined) -> Joined:
        return Joined((*self.parts, *other.parts))


@dataclass(frozen=True)
class Placed:
    """Observation operators on the spaces of a problem's solution and coefficient."""

    sensors: Sensors | Joined
    solution: Space
    coefficient: Space

    def space(self, part: Sensors) -> Space:
        """That of the field that a part observes. Raises InputError for a channel that the field does not have."""
        space = self.solution if part.of == "solution" else self.coefficient
        if not 0 <= part.channel < space.channels:
            channels = f"0 to {space.channels - 1}" if space.channels > 1 else "0, as there is one"
            raise InputError(f"channel {part.channel} of the {part.of}; accepted: {channels}")
        return space

    def grid(self, part: Sensors) -> Grid:
        return self.space(part).grid

    @cached_property
    def functionals(self) -> Functionals:
        """Those of all parts. Raises InputError for what is outside a grid or a domain."""
        size, made = int(np.prod(self.solution.shape)), []
        for part in self.sensors.parts:
            grid = self.grid(part)
            own, nodes = part.functionals(grid), int(np.prod(grid.shape))
            if own.index.numel() == 0 or int(own.index.min()) < 0 or int(own.index.max()) >= nodes:
                raise InputError(f"{type(part).__name__}.functionals: accepted: index [P, q] of nodes from 0 to {nodes - 1}")
            start = part.channel * nodes + (size if part.of == "coefficient" else 0)
            made.append(Functionals(own.index + start, own.weights, size))
        return joined(made)

    def draw(self, seed: int, field: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of the functionals a field shows [m], and of which part each is [m]; from (seed, field) alone."""
        index, owner, start = [], [], 0
        for number, part in enumerate(self.sensors.parts):
            if number > 0:
                before = self.sensors.parts[number - 1]
                start += len(before.functionals(self.grid(before)).index)
            chosen = part.draw(self.grid(part), seed, field, *[number] * (number > 0))
            index.append(chosen + start)
            owner.append(np.full(len(chosen), number))
        return np.concatenate(index), np.concatenate(owner)
