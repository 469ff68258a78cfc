"""Normalised fields: x = (a - mean) * 0.5 / std, so that the data has the denoiser's standard deviation 0.5."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ddis.data.hdf5 import Mapped, mean_and_std
from ddis.errors import InputError
from ddis.grid import Space
from ddis.lazy import torch
from ddis.models.denoiser import SIGMA_DATA

if TYPE_CHECKING:
    from torch import Tensor

    from ddis.pde.base import Problem

# What of a split has statistics, and the array that it is of
KINDS = {"coefficient": "coefficient", "free": "coefficient", "solution": "solution"}


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of one field over the training data that a model may see.

    Numbers; of several channels nested lists [C, 1, ...], which broadcast against a field.
    """

    mean: Any
    std: Any

    @classmethod
    def of(cls, fields: Any, space: Space | None = None) -> Normalisation:
        """Statistics over fields [N, *shape] and the nodes of the domain, by channel; space: theirs (default: one channel).

        fields: an array, or what gives it block by block (see `ddis.data.hdf5.Mapped`).

        Raises InputError for constant fields.
        """
        if space is not None and space.grid.mask is not None:
            mask = space.grid.mask
            fields = Mapped(fields, lambda block: block[..., mask])
        if space is not None and space.channels > 1:
            parts = [cls.of(Mapped(fields, partial(_channel, channel))) for channel in range(space.channels)]
            shape = (space.channels, *(1,) * len(space.grid.shape))
            return cls(*(np.reshape([getattr(part, name) for part in parts], shape).tolist() for name in ("mean", "std")))
        mean, std = mean_and_std(fields)
        if not std > 0:
            raise InputError(f"fields are constant (standard deviation {std}); nothing can be learned from them")
        return cls(mean, std)

    @property
    def without_mean(self) -> Normalisation:
        """The same with mean 0, as in a closed form."""
        return Normalisation((0 * np.asarray(self.mean)).tolist(), self.std)

    @property
    def unit(self) -> Any:
        """What 1 of the normalised field is worth: a number; of several channels a tensor [C, 1, ...]."""
        return _value(self.std) / SIGMA_DATA

    def normalise(self, field: Tensor) -> Tensor:
        return (field - _value(self.mean, field)) * (SIGMA_DATA / _value(self.std, field))

    def restore(self, field: Tensor) -> Tensor:
        return field * (_value(self.std, field) / SIGMA_DATA) + _value(self.mean, field)


def _channel(channel: int, fields: np.ndarray) -> np.ndarray:
    return fields[:, channel]


def _value(number: Any, like: Tensor | None = None) -> Any:
    """A number, or a tensor of nested lists: float64, or of the type and device of another."""
    if not isinstance(number, list):
        return number
    values = torch.tensor(number, dtype=torch.float64)
    return values if like is None else values.to(like)


def normalisation(problem: Problem, kind: str, fields: Any) -> Normalisation:
    """That of the array that a kind is of, [N, *shape]; `free`: of the free fields of coefficients, see `Problem.relax`.

    Raises InputError for constant fields.
    """
    assert problem.resolution is not None
    coefficient, solution = problem.spaces(problem.resolution)
    if kind == "free":
        fields = Mapped(fields, lambda block: problem.relax(torch.from_numpy(block)).numpy())
    return Normalisation.of(fields, solution if kind == "solution" else coefficient)


def statistics(problem: Problem, dataset: Callable[[str], Any]) -> dict[str, dict[str, Any]]:
    """By kind, as JSON; without constant fields. dataset: gives an array or HDF5 dataset by name, to be read block by block."""
    found = {}
    for kind, name in KINDS.items():
        with suppress(InputError):
            found[kind] = asdict(normalisation(problem, kind, dataset(name)))
    return found
