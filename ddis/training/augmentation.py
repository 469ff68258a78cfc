"""Augmentation of a prior's training: fields are moved by symmetries that leave their distribution as it is.

With probability p a field is replaced by its image under an element of the group that the symmetries generate, each element as
probable. Nothing else changes: neither the distribution that is learnt nor the network, which is not told of it. (EDM, arXiv
2206.00364, appendix F.2, also turns by any angle and stretches, and tells the network, since these change the distribution.)
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddis.pde.base import Symmetry
from ddis.randomness import generator


@dataclass(frozen=True)
class Augmentation:
    """probability: p; symmetries: which; seed: of what is drawn, with the step and the place in the batch."""

    probability: float
    symmetries: Collection[Symmetry]
    seed: int

    def __call__(self, x: Tensor, step: int, first: int = 0) -> Tensor:
        """Fields [B, C, *nodes] that stand at the places `first`, `first` + 1, ... of a step's batch, some of them moved."""
        generators = (generator(self.seed, "augmentation", step, first + place) for place in range(len(x)))
        fields = zip(x, generators, strict=True)
        return torch.stack([self.image(field, rng) if rng.random() < self.probability else field for field, rng in fields])

    def image(self, field: Tensor, rng: np.random.Generator) -> Tensor:
        """A field [C, *nodes] moved by a random element."""
        axes = range(1, field.ndim)
        if "shifts" in self.symmetries:
            field = field.roll([int(rng.integers(field.shape[axis])) for axis in axes], list(axes))
        if "flips" in self.symmetries:
            field = field.flip([axis for axis in axes if rng.random() < 0.5])
        if "transposition" in self.symmetries and rng.random() < 0.5:
            field = field.mT
        return field
