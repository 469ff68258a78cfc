"""Losses of networks that are given noisy fields and their levels: what is drawn in a training, and for a validation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ddis.fields.noise import Noise
from ddis.randomness import Generators, generator
from ddis.training.augmentation import Augmentation

VALIDATION_DRAWS = 256

# (network, fields x [B, C, *nodes], levels [B], noise [B, C, *nodes]) -> mean loss
Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def training_loss(
    loss: Loss,
    network: nn.Module,
    data: Tensor,
    noise: Noise,
    levels: Callable[[Generators], Sequence[float] | np.ndarray],
    seed: int,
    stream: str,
    first: int,
    augmentation: Augmentation | None = None,
) -> Callable[[np.ndarray, int], Tensor]:
    """The loss of a step on fields `data` [N, C, *nodes]; noise and levels depend on (seed, stream, step, place in the batch).

    first: place in the batch of the first of the fields that the loss is asked for.
    """

    def of_step(indices: np.ndarray, step: int) -> Tensor:
        x = data[torch.from_numpy(indices).to(data.device)]
        if augmentation is not None:
            x = augmentation(x, step, first)
        generators = [generator(seed, stream, step, first + place) for place in range(len(indices))]
        drawn = torch.from_numpy(np.asarray(levels(generators))).to(x)
        return loss(network, x, drawn, noise.sample(tuple(x.shape), generators, x.device).to(x))

    return of_step


def validation_loss(
    loss: Loss, data: Tensor, noise: Noise, quantiles: np.ndarray, seed: int, batch: int = 64
) -> Callable[[nn.Module], float]:
    """Loss on one draw for each of the levels, from the first of the held-out fields, the same at every call."""
    fields = len(quantiles)
    which = np.arange(fields) % len(data)
    levels = generator(seed, "validation levels").permutation(quantiles)

    def validate(network: nn.Module) -> float:
        total = 0.0
        for start in range(0, fields, batch):
            x = data[torch.from_numpy(which[start : start + batch]).to(data.device)]
            generators = [generator(seed, "validation", start + place) for place in range(len(x))]
            n = noise.sample(tuple(x.shape), generators, x.device).to(x)
            total += float(loss(network, x, torch.from_numpy(levels[start : start + batch]).to(x), n)) * len(x)
        return total / fields

    return validate
