"""Coefficients and their solutions: in bounded memory, in parallel, the same bits whoever computes them.

A dataset is cut into shards of a fixed number of fields, counted from the split's first field. A shard is always computed
whole, by one thread: products of matrices may round differently for another batch or number of threads. Each is a file of
its own beside the dataset until all are there, so that an interrupted run goes on with what it has.
"""

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ddis.data.hdf5 import read_attributes
from ddis.data.residual import relative_residual
from ddis.data.store import PAIRS, Pairs, PairsWriter, Shapes, pairs_writer, read_pairs, write_pairs
from ddis.errors import InputError, whole_number
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.versions import PROBLEMS, STAGES, version

SPLIT_OFFSET = {"train": 0, "validation": 1, "test": 2}
_SPLIT_STRIDE = 1 << 40
_SHARD_FIELDS, _SHARD_NODES = 512, 1 << 20


def split_indices(split: str, count: int) -> np.ndarray:
    """Field indices of a split ("train", "validation", "test"); the splits never share one."""
    return SPLIT_OFFSET[split] * _SPLIT_STRIDE + np.arange(count)


def shard_size(nodes: int) -> int:
    """Fields per shard: 512, fewer from 64 x 64 nodes on, so that a shard's arrays stay at 8 MiB each."""
    return max(1, min(_SHARD_FIELDS, _SHARD_NODES // nodes))


@dataclass(frozen=True)
class Request:
    """A split of a dataset. Raises InputError for what cannot be made."""

    pde: str
    parameters: dict[str, Any]
    resolution: int
    count: int
    seed: int
    split: str = "train"

    def __post_init__(self) -> None:
        self.make_problem().check(self.resolution)
        whole_number("count", self.count, 1)
        whole_number("seed", self.seed)
        if self.split not in SPLIT_OFFSET:
            raise InputError(f"split {self.split!r}; accepted: {', '.join(SPLIT_OFFSET)}")

    def make_problem(self) -> Problem:
        return make_problem(self.pde, self.parameters)

    def describe(self) -> dict[str, Any]:
        """The attributes of a file of this request."""
        parameters = self.make_problem().parameters.model_dump(mode="json")
        source = {"kind": "generated", "seed": self.seed, "split": self.split}
        return {"pde": self.pde, "parameters": parameters, "split": self.split, "seed": self.seed, "source": source}

    def digest(self) -> str:
        """16 hexadecimal digits that change with what is asked for."""
        versions = [STAGES["generate"], version(PROBLEMS, self.pde, type(self.make_problem()))]
        text = json.dumps({**asdict(self), **self.describe(), "version": versions}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def shards(self) -> int:
        return -(-self.count // self.shard_size)

    @property
    def shapes(self) -> Shapes:
        """Of one coefficient and one solution."""
        return self.make_problem().shapes(self.resolution)

    @property
    def shard_size(self) -> int:
        return shard_size(max(map(math.prod, self.shapes)))

    def shard_fields(self, shard: int) -> np.ndarray:
        """Indices of the fields of a shard."""
        size = self.shard_size
        return split_indices(self.split, self.count)[shard * size : (shard + 1) * size]


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for torch and BLAS inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def make_shard(request: Request, shard: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(coefficient, solution) [n, *shape] float32 of a shard, and the largest relative residual of two of them, in float64."""
    problem = request.make_problem()
    with single_thread():
        coefficient = problem.sample_coefficients(request.shard_fields(shard).tolist(), request.resolution, request.seed)
        solution = problem.solve(coefficient)
        # Two fields: the residual of an evolution is as much work as its solution.
        checked = [0, len(coefficient) - 1]
        residual = float(relative_residual(problem, coefficient[checked], solution[checked]).max())
    return coefficient.float().numpy(), solution.float().numpy(), residual


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06d}.h5"


def write_shard(request: Request, folder: Path, key: str, shard: int) -> None:
    """Makes a shard and writes it into `folder`, marked with `key`."""
    coefficient, solution, residual = make_shard(request, shard)
    write_pairs(_shard_path(folder, shard), coefficient, solution, {"shard_of": key, "residual": residual})


def _is_there(folder: Path, key: str, shard: int) -> bool:
    try:
        return read_attributes(_shard_path(folder, shard), PAIRS)["shard_of"] == key
    except (InputError, KeyError):
        return False


def _take(request: Request, folder: Path, key: str, shard: int) -> Pairs:
    """A finished shard; made again where it is damaged, or where another process has cleared it away."""
    for _ in range(2):
        try:
            pairs = read_pairs(_shard_path(folder, shard), request.shapes, len(request.shard_fields(shard)))
            if pairs.attributes["shard_of"] == key:
                return pairs
        except InputError:
            pass
        write_shard(request, folder, key, shard)
    return read_pairs(_shard_path(folder, shard))


def _start_worker() -> None:
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()  # a killed parent can end nobody
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _finished(make: Callable[[int], None], shards: list[int], workers: int) -> Generator[int, None, None]:
    """Makes shards in `workers` processes (here, if it is one) and yields their numbers in order."""
    if min(workers, len(shards)) <= 1:
        for shard in shards:
            make(shard)
            yield shard
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(shards)), context, initializer=_start_worker)
    try:
        # Workers inherit the mask: Ctrl-C and SIGTERM go to all processes, and the parent ends its workers itself.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            results = pool.map(make, shards)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for shard, _ in zip(shards, results, strict=True):
            yield shard
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {workers} workers was killed, perhaps for want of memory; the same command goes on, try fewer workers"
        ) from error
    finally:
        # After an error or Ctrl-C the shards under way are given up; those finished stay.
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
            child.join()


def generate_file(
    path: Path,
    request: Request,
    key: str,
    attributes: Mapping[str, Any],
    workers: int = 1,
    progress: Callable[[int], None] = lambda fields: None,
    finish: Callable[[PairsWriter], None] = lambda writer: None,
) -> dict[str, Any]:
    """Writes the pairs of a request to `path`; returns the file's attributes, with `digest` and `residual`.

    Shards are kept in a hidden folder beside `path` until the file is complete, as large as the file itself; those found there
    are taken if they carry the same `key`, which is to change with the request. `progress` is called after
    each shard with the number of fields written, `finish` after the last: it may add attributes.
    """
    folder = path.with_name(f".{path.name}.shards")
    missing = [shard for shard in range(request.shards) if not _is_there(folder, key, shard)]
    made = _finished(partial(write_shard, request, folder, key), missing, workers)
    waiting, residual = set(missing), 0.0
    whole = pairs_writer(path, request.count, request.shapes, {**request.describe(), **attributes})
    with closing(made), whole as writer:
        for shard in range(request.shards):
            while shard in waiting:
                waiting.discard(next(made))
            pairs = _take(request, folder, key, shard)
            writer.append(pairs.coefficient, pairs.solution)
            residual = max(residual, pairs.attributes["residual"])
            progress(writer.written)
        writer.attributes["residual"] = residual
        finish(writer)
    shutil.rmtree(folder, ignore_errors=True)
    return {**writer.attributes, "digest": writer.digest}
