"""Fields whose truth is known, and what sensors show of them, with simulated noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ddis.data.seen import Seen
from ddis.observe.base import Placed
from ddis.observe.likelihood import worth
from ddis.observe.observation import NOISELESS_VARIANCE
from ddis.randomness import generator


@dataclass(frozen=True)
class Simulated:
    """n fields in physical units, coefficient and solution [n, *shape], and the values [n, m] that are observed of them.

    placed          the observation operator; index [n, m]: which of its functionals each field shows
    unit, variance  [m]: standard deviation of the observed field over the training split, and variance of the independent errors
                    that say what the likelihood says (see `ddis.observe.likelihood`), at least the floor of R
    noise           [m]: standard deviation of the simulated noise
    scale           standard deviation of the solutions
    """

    coefficient: np.ndarray
    solution: np.ndarray
    placed: Placed
    index: np.ndarray
    values: np.ndarray
    unit: np.ndarray
    variance: np.ndarray
    noise: np.ndarray
    scale: float

    @property
    def of_nodes(self) -> bool:
        """Whether all values are of nodes of the solution."""
        functionals = self.placed.functionals
        return functionals.weights is None and not functionals.seen[1]

    def picture(self) -> tuple[np.ndarray, np.ndarray]:
        """Mask and observation [n, *shape] of the solution's nodes; the observation is 0 where there is none.

        What is not of a node stands at the node that weighs most, what is of the coefficient nowhere.
        """
        mask, values = np.zeros(self.solution.shape, dtype=bool), np.zeros(self.solution.shape, dtype=np.float32)
        functionals = self.placed.functionals
        heaviest = torch.zeros(len(functionals.index), 1, dtype=torch.long)
        if functionals.weights is not None:
            heaviest = functionals.weights.argmax(dim=1, keepdim=True)
        nodes = functionals.index.gather(1, heaviest)[:, 0].numpy()[self.index]
        for field, (row, found) in enumerate(zip(nodes, self.values, strict=True)):
            inside = row < functionals.nodes
            mask[field].reshape(-1)[row[inside]] = True
            values[field].reshape(-1)[row[inside]] = found[inside]
        return mask, values

    def seen(self) -> Seen | None:
        """What a samples file needs to compute the values again; None where mask and observation say it."""
        if self.of_nodes:
            return None
        functionals = self.placed.functionals
        weights = torch.ones(functionals.index.shape) if functionals.weights is None else functionals.weights
        places = functionals.index.numpy()[self.index]
        relative = (self.noise / self.unit).astype(np.float32)
        return Seen(self.values, places, weights.numpy()[self.index].astype(np.float32), self.unit.astype(np.float32), relative)


def simulated(
    placed: Placed,
    coefficient: np.ndarray,
    solution: np.ndarray,
    stds: Mapping[str, NDArray[np.float64]],
    scale: float,
    seed: int,
    streams: Sequence[int],
) -> Simulated:
    """The fields as the sensors show them, y = M u + e; the places and the noise of field n depend on (seed, streams[n]) alone.

    Args:
        stds: of the observed fields over the training split, one per channel, the unit of the sensors' noise.
        scale: standard deviation of the solutions.
    """
    drawn = [placed.draw(seed, stream) for stream in streams]
    index, owner = np.stack([chosen for chosen, _ in drawn]), drawn[0][1]
    parts = [(p.noise.item(), p.assumed_noise.item(), float(stds[p.of][p.channel])) for p in placed.sensors.parts]
    noise = np.array([relative * std for relative, _, std in parts])[owner]
    said = worth(placed.sensors.parts[0].likelihood, len(owner))
    variance = np.array([max(said * assumed**2, NOISELESS_VARIANCE) * std**2 for _, assumed, std in parts])[owner]
    functionals = placed.functionals
    seen = [torch.from_numpy(f).double() if s else None for f, s in zip((solution, coefficient), functionals.seen, strict=True)]
    values = functionals(functionals.stack(*seen), torch.from_numpy(index)).numpy().astype(np.float32)
    for row, stream in zip(values, streams, strict=True):
        row += noise.astype(np.float32) * generator(seed, "observation", stream).standard_normal(len(row), dtype=np.float32)
    unit = np.array([std for *_, std in parts])[owner]
    return Simulated(coefficient, solution, placed, index, values, unit, variance, noise, scale)
