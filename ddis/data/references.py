"""The file of a reference posterior: draws that the samples of runs are compared with, and what certifies them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddis.data.hdf5 import read_arrays, write_arrays
from ddis.errors import InputError

REFERENCES = "ddis-references"
_ARRAYS = ("coefficient", "weight", "mean", "std")


@dataclass
class References:
    """Reference posteriors of the first n test fields, in physical units.

    coefficient [n, K, *shape] draws, the first half of them independent of the second; weight [n, K] of them, of sum 1 for each
    field; mean, std [n, *shape] of the coefficient, in closed form or over all states of chains
    attributes: kind (closed-form | mixture | mcmc | kernel), likelihood, r_hat, ess, converged (lists of n), coefficient_std ...
    """

    coefficient: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> np.ndarray:
        """Fields [n], bool, whose reference is certified."""
        return np.array(self.attributes["converged"], dtype=bool)


def write_references(path: Path | str, references: References) -> None:
    """Writes the arrays as float32, atomically."""
    arrays = {name: np.asarray(getattr(references, name), dtype=np.float32) for name in _ARRAYS}
    write_arrays(path, REFERENCES, arrays, references.attributes, 1 if references.mean.ndim == 3 else 2)


def read_references(path: Path | str) -> References:
    """Raises InputError for a file that is none, or whose arrays do not fit together."""
    arrays, attributes = read_arrays(path, REFERENCES, _ARRAYS)
    shape = arrays["coefficient"].shape
    fields = (*shape[:1], *shape[2:])
    if not (arrays["mean"].shape == arrays["std"].shape == fields and arrays["weight"].shape == shape[:2]):
        raise InputError(f"{path}: arrays do not fit together; accepted: draws [n, K, ...], weights [n, K], moments [n, ...]")
    if len(attributes.get("converged") or []) != len(arrays["mean"]):
        raise InputError(f"{path}: no word for every field on whether its reference has converged")
    return References(**arrays, attributes=attributes)
