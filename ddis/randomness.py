"""Random numbers that depend on (seed, stream, indices) alone: never on batch size, workers, or what else runs."""

import zlib
from collections.abc import Sequence

import numpy as np

Generators = Sequence[np.random.Generator]


def generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """The generator of one stream, for example `generator(seed, "coefficient", field)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *indices])))


def white_noise(shape: tuple[int, ...], generators: Generators, dtype: type = np.float32) -> np.ndarray:
    """Standard normal numbers [len(generators), *shape], row b drawn from `generators[b]`."""
    out: np.ndarray = np.empty((len(generators), *shape), dtype=dtype)
    for row, rng in zip(out, generators, strict=True):
        rng.standard_normal(out=row, dtype=dtype)
    return out
