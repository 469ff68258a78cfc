"""Normalised fields: x = (a - mean) * 0.5 / std, so that the data has the denoiser's standard deviation 0.5."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of one field over the training data that a model may see."""

    mean: float
    std: float

    @classmethod
    def of(cls, fields: np.ndarray) -> "Normalisation":
        """Statistics over all fields and nodes of [N, S, S]. Raises ValueError for constant fields."""
        mean, std = float(np.mean(fields, dtype=np.float64)), float(np.std(fields, dtype=np.float64))
        if not std > 0:
            raise ValueError(f"fields are constant (standard deviation {std}); nothing can be learned from them")
        return cls(mean, std)

    def normalise(self, field: Tensor) -> Tensor:
        return (field - self.mean) * (SIGMA_DATA / self.std)

    def restore(self, field: Tensor) -> Tensor:
        return field * (self.std / SIGMA_DATA) + self.mean
