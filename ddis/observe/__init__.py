"""Observation operators, by name. To add one: write its file beside this one, and add its line here.

`ddis.observe.points(xy, noise=1e-4)` and so on make them in Python; sums of them are one observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddis.arrays import numbers
from ddis.errors import InputError, whole_number
from ddis.grid import Space, square
from ddis.lazy import torch
from ddis.observe.base import Joined, Placed, Sensors, SensorSettings, per_value
from ddis.observe.blocks import Blocks as blocks
from ddis.observe.coefficient import Coefficient as coefficient
from ddis.observe.columns import Columns as columns
from ddis.observe.lines import Lines as lines
from ddis.observe.nodes import Nodes as nodes
from ddis.observe.points import Points as points
from ddis.randomness import generator
from ddis.refusals import shown, validated
from ddis.registry import Registry

if TYPE_CHECKING:
    from ddis.pde.base import Problem

__all__ = [
    "KINDS",
    "Joined",
    "Placed",
    "SensorSettings",
    "Sensors",
    "blocks",
    "coefficient",
    "columns",
    "lines",
    "load_kind",
    "nodes",
    "points",
    "sensors_of",
    "settings_of",
    "simulate",
]

KINDS = Registry(
    "kind",
    "ddis.observations",
    {
        "nodes": "ddis.observe.nodes:Nodes",
        "points": "ddis.observe.points:Points",
        "blocks": "ddis.observe.blocks:Blocks",
        "columns": "ddis.observe.columns:Columns",
        "lines": "ddis.observe.lines:Lines",
        "coefficient": "ddis.observe.coefficient:Coefficient",
        "listed": "ddis.observe.listed:Listed",
    },
)


def settings_of(given: Any) -> SensorSettings | tuple[SensorSettings, ...]:
    """The settings of one observation operator, or of several in a list. Raises InputError."""
    if isinstance(given, list | tuple) and given:
        return tuple(_settings_of(part) for part in given)
    return _settings_of(given)


def _settings_of(given: Any) -> SensorSettings:
    if isinstance(given, SensorSettings):
        return given
    if not isinstance(given, Mapping):
        problem = "empty" if given in ([], ()) else shown(given)
        raise InputError(f"{problem}; accepted: settings such as {{count: 100}}, or a list of them")
    return validated(load_kind(given.get("kind", "nodes")).Settings, given, "{count: 100}")


def sensors_of(settings: SensorSettings | Sequence[SensorSettings]) -> Sensors | Joined:
    """The observation operator of settings of a study, or the sum of several. Raises InputError."""
    parts = [settings] if isinstance(settings, SensorSettings) else settings
    if len({part.likelihood for part in parts}) > 1:
        raise InputError(
            "likelihood: gaussian and mean-absolute in one list; accepted: the same for all that is observed together"
        )
    kinds = [load_kind(part.kind) for part in parts]
    own = [kind.of_settings(part) for kind, part in zip(kinds, parts, strict=True)]
    made = [sensors.of_channel(part.channel).with_likelihood(part.likelihood) for sensors, part in zip(own, parts, strict=True)]
    return made[0] if len(made) == 1 else Joined(tuple(made))


def simulate(
    sensors: Sensors | Joined, solution: Any, coefficient: Any = None, seed: int = 0, problem: Problem | None = None
) -> NDArray[np.float64]:
    """Values [m] that the sensors would give of one field [*shape], with their noise; for trying things out.

    problem: says where the nodes are; None: they are those of the unit square, with a solution that is 0 on its boundary.
    Raises InputError for fields that are not those of the grid, and for a coefficient that is observed and not given.
    """
    seed = whole_number("seed", seed)
    u = torch.from_numpy(numbers("solution", solution))
    a = None if coefficient is None else torch.from_numpy(numbers("coefficient", coefficient))
    if problem is None or problem.resolution is None:
        spaces = (Space(square(max(u.shape, default=1))),) * 2
    else:
        spaces = problem.solution_space(problem.resolution), problem.coefficient_space(problem.resolution)
    for name, field, space in zip(("solution", "coefficient"), (u, a), spaces, strict=True):
        if field is not None and tuple(field.shape) != space.shape:
            raise InputError(f"{name} of shape {tuple(field.shape)}; accepted: one field {space.shape}, or another `problem`")
    placed = Placed(sensors, *spaces)
    if problem is None and placed.functionals.weights is not None and bool(u[torch.from_numpy(~spaces[0].grid.interior)].any()):
        raise InputError(
            "solution: not 0 on the boundary, so where its nodes are is not known; accepted: simulate(..., problem=problem)"
        )
    seen = placed.functionals.seen
    if seen[1] and a is None:
        raise InputError("coefficient: none, but it is observed; accepted: simulate(sensors, solution, coefficient)")
    fields = placed.functionals.stack(u[None] if seen[0] else None, a[None] if seen[1] and a is not None else None)
    index, owner = placed.draw(seed, 0)
    values = placed.functionals(fields, torch.from_numpy(index)[None])[0].numpy()
    noise = np.concatenate([per_value("noise", p.noise, int((owner == k).sum())) for k, p in enumerate(sensors.parts)])
    noisy: NDArray[np.float64] = values + noise * generator(seed, "observation", 0).standard_normal(len(values))
    return noisy


def load_kind(name: str) -> type[Sensors]:
    """The class of a kind of observation. Raises InputError for an unknown one."""
    return KINDS.load_class(name, Sensors)
