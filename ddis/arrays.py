"""Arrays that users give: checked, and copied, as torch takes no reversed array and none of another byte order."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddis.errors import InputError


def numbers(name: str, given: ArrayLike) -> NDArray[np.float64]:
    """An array of numbers, float64. Raises InputError for text, rows of different lengths, and masked values."""
    array = _array(name, given)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} of type {array.dtype}; accepted: an array of numbers")
    return np.array(array, dtype=np.float64, order="C")


def whole_numbers(name: str, given: ArrayLike) -> NDArray[np.int64]:
    """An array of whole numbers; empty lists are one too. Raises InputError for others: 2.7 is not cut to 2."""
    array = _array(name, given)
    if array.size and (array.dtype.kind not in "fiu" or not (np.abs(array) < 2**53).all() or (array % 1 != 0).any()):
        raise InputError(f"{name} {_short(given)}; accepted: whole numbers")
    return np.array(array, dtype=np.int64, order="C")


def _array(name: str, given: ArrayLike) -> NDArray[np.generic]:
    if np.ma.is_masked(given):
        raise InputError(f"{name}: some are masked; accepted: those that are known, without a mask")
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # of torch those on a GPU, and those with a gradient
        raise InputError(f"{name}: {error}; accepted: an array of numbers") from error


def _short(given: object) -> str:
    return f"{given!s:.60}"
