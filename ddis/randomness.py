"""Random numbers that depend on (seed, stream, indices) alone: never on batch size, workers, or what else runs."""

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

Generators = Sequence[np.random.Generator]
WORTH_A_THREAD = 2**17  # numbers: about a millisecond, several times what a thread takes to start


def generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """The generator of one stream, for example `generator(seed, "coefficient", field)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *indices])))


def white_noise(shape: tuple[int, ...], generators: Generators, dtype: type = np.float32) -> np.ndarray:
    """Standard normal numbers [len(generators), *shape], row b drawn from `generators[b]`, all distinct, by torch's threads."""
    out: np.ndarray = np.empty((len(generators), *shape), dtype=dtype)

    def fill(row: np.ndarray, rng: np.random.Generator) -> None:
        rng.standard_normal(out=row, dtype=dtype)

    threads = min(torch.get_num_threads(), len(out), out.size // WORTH_A_THREAD)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, out, generators))
    else:
        for row, rng in zip(out, generators, strict=True):
            fill(row, rng)
    return out
