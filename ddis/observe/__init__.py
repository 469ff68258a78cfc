"""Observation operators, by name. To add one: write its file beside this one, and add its line here.

`ddis.observe.points(xy, noise=1e-4)` and so on make them in Python; sums of them are one observation.
"""

from typing import Any

from pydantic import ValidationError

from ddis.errors import InputError
from ddis.observe.base import Joined, Placed, Sensors, SensorSettings
from ddis.observe.nodes import Nodes as nodes
from ddis.observe.points import Points as points
from ddis.registry import Registry

__all__ = ["KINDS", "Joined", "Placed", "SensorSettings", "Sensors", "nodes", "points", "sensor_settings"]

KINDS = Registry(
    "kind",
    "ddis.observations",
    {
        "nodes": "ddis.observe.nodes:Nodes",
        "points": "ddis.observe.points:Points",
    },
)


def sensor_settings(values: dict[str, Any]) -> SensorSettings:
    """Validated settings of one observation operator. Raises InputError."""
    kind = load_kind(values.get("kind", "nodes"))
    try:
        return kind.Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, known = ".".join(map(str, first["loc"])), ", ".join(kind.Settings.model_fields)
        raise InputError(f"{key}: {first['msg']} (got {first['input']!r}); settings of this kind: {known}") from error


def load_kind(name: str) -> type[Sensors]:
    """The class of a kind of observation. Raises InputError for an unknown one."""
    kind = KINDS.load(name)
    if not (isinstance(kind, type) and issubclass(kind, Sensors)):
        raise InputError(f"kind {name!r} is no subclass of ddis.observe.base.Sensors")
    return kind
