"""Observed values that are more than nodes of the solution, as files of samples keep them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Seen:
    """Observed values that are not of nodes of the solution: weighted sums over nodes.

    values [n, m]; places [n, m, q]: flat nodes of the solution, the coefficient's counted on from its last; weights [n, m, q];
    units [m]: standard deviation of the field that each is of; noise [m], in units, or None: of older files, not known
    """

    values: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    units: np.ndarray
    noise: np.ndarray | None = None

    def misfit(self, solution: np.ndarray, coefficient: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
        """Root mean square [n, K] of predictions minus values, in the units or those of scale [m], of fields [n, K, *shape]."""
        fields = np.concatenate([f.reshape(*f.shape[:2], -1) for f in (solution, coefficient)], axis=2).astype(np.float64)
        taken = np.stack([each[:, places] for each, places in zip(fields, self.places, strict=True)])
        difference = (taken * self.weights[:, None]).sum(axis=-1) - self.values[:, None]
        return np.asarray(np.sqrt(np.square(difference / (self.units if scale is None else scale)).mean(axis=-1)))
