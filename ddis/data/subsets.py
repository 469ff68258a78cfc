"""Paired subsets: nested, so that 1 % lies inside 5 % of the pairs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddis.errors import InputError
from ddis.randomness import generator


def percent_name(percent: float) -> str:
    """A percent as it stands in file names and tables: without trailing zeros (1, 12.5, 100)."""
    return f"{round(percent, 10):.10f}".rstrip("0").rstrip(".")


def percent_keys(value: Any) -> Any:
    """A table by percent with its keys as in file names: 12.50 as 12.5. Raises InputError if two of them are one percent."""
    if not isinstance(value, Mapping):
        return value
    names: dict[str, Any] = {}
    for key, part in value.items():
        try:
            name = percent_name(float(key))
        except (ValueError, TypeError, OverflowError):
            name = key  # no percent, which is for others to say
        if name in names:
            raise InputError(f"percent {name} stands twice; accepted: each percent once")
        names[name] = part
    return names


def percent_label(fraction: float) -> str:
    """The percent of a fraction in (0, 1]: 0.01 -> "1", 0.125 -> "12.5", 1.0 -> "100"."""
    return percent_name(100 * fraction)


def fraction_of(percent: str) -> float:
    """The fraction of a percent as in file names: "12.5" -> 0.125. Raises InputError if it is none in (0, 100]."""
    try:
        fraction = float(percent) / 100
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1 or percent != percent_label(fraction):
        raise InputError(f"percent {percent!r}; accepted: a number in (0, 100], as in file names (1, 12.5, 100)")
    return fraction


def subset_count(fraction: float, available: int) -> int:
    """max(1, round(fraction x available))."""
    return max(1, round(fraction * available))


def paired_subset(fraction: float, available: int, seed: int, stream: str = "pairs") -> np.ndarray:
    """Sorted indices of the paired fields; the subset of a smaller fraction lies inside that of a larger one."""
    order = generator(seed, stream).permutation(available)
    return np.sort(order[: subset_count(fraction, available)])
