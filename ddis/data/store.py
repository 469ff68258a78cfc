"""The files of a study that hold fields: pairs, and posterior samples.

How they are written and checked is in `ddis.data.hdf5`.

Arrays are float32 [N, *shape] in physical units, with the shape of a field: (S, S), or that of its space, channels first (see
ddis.grid). `format_version` is 1 where coefficients and solutions are [N, S, S], as all were at first, and 2 for other shapes.

Pairs are written and read in blocks, so that memory is bounded whatever N is; fields read one by one are covered by a checksum of
their own. Values are checked to be finite when they are written too.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ddis.data.hdf5 import (
    BLOCK_BYTES,
    all_finite,
    arrays_digest,
    attributes_of,
    check_digest,
    check_finite,
    check_names,
    new_file,
    open_file,
    read_arrays,
    readable,
    set_attributes,
    write_arrays,
)
from ddis.data.seen import Seen
from ddis.errors import InputError
from ddis.grid import Space, described, square

Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape]  # of a coefficient and a solution
PAIRS, SAMPLES = "ddis-pairs", "ddis-samples"
FIELDS = ("coefficient", "solution")
_SAMPLE_FIELDS = ("coefficient", "mean", "std", "coefficient_true", "solution_true", "mask", "observation")
_OPTIONAL = ("solution", "domain")
_HDF5_CHUNK_BYTES = 1 << 16


@dataclass
class Pairs:
    """Paired fields [N, *shape], float32, with the attributes of their file."""

    coefficient: np.ndarray
    solution: np.ndarray
    attributes: dict[str, Any]


@dataclass
class Samples:
    """Posterior samples of n test fields, and what they were drawn from.

    coefficient [n, K, *shape]; mean, std, coefficient_true [n, *shape] of a coefficient; solution_true, mask (bool), observation
    (0 where there is none) [n, *shape] of a solution; solution [n, K, *shape] or None: the problem's own solution of each sample;
    domain [*nodes] or None: the nodes of both grids that belong to the domain, where not all do.
    seen: where not all values are of nodes.
    """

    coefficient: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    coefficient_true: np.ndarray
    solution_true: np.ndarray
    mask: np.ndarray
    observation: np.ndarray
    solution: np.ndarray | None = None
    domain: np.ndarray | None = None
    seen: Seen | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def spaces(self) -> tuple[Space, Space]:
        """Of coefficient and solution, from the attribute `spaces` and the domain.

        A file from before it was stored holds square fields, periodic ones where a node of the boundary is observed.
        """
        if "spaces" in self.attributes:
            coefficient, solution = (described(space, self.domain) for space in self.attributes["spaces"])
            return coefficient, solution
        whole = Space(square(self.mask.shape[-1], bool(self.mask[:, 0].any() or self.mask[:, :, 0].any())))
        return whole, whole

    @property
    def observations(self) -> int:
        """Number of observed values of a field."""
        return int(self.mask[0].sum()) if self.seen is None else self.seen.values.shape[1]

    @property
    def failed(self) -> np.ndarray:
        """Fields [n] with a sample, or a solution of one, that is not finite: left out of all tables and figures."""
        return failed_fields(self.coefficient, *(() if self.solution is None else (self.solution,)))


def failed_fields(*arrays: np.ndarray) -> np.ndarray:
    """Fields for which any value of any array [n, ...] is not finite, bool [n]."""
    finite = [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in map(np.asarray, arrays)]
    return np.asarray(~np.logical_and.reduce(finite))


def format_version(coefficient: Shape, solution: Shape) -> int:
    """1 for one channel on S x S nodes, as all fields were at first, else 2."""
    return 1 if coefficient == solution == coefficient[:1] * 2 else 2


def _chunk_rows(count: int, shape: Shape) -> int:
    """Fields per HDF5 chunk: few, so that one is read cheaply."""
    return min(count, max(1, _HDF5_CHUNK_BYTES // (4 * math.prod(shape))))


class PairsWriter:
    """Appends pairs to a file of a known number of fields; made by `pairs_writer`.

    `attributes` may be added to until the end; `digest` is there after it.
    """

    def __init__(self, path: Path | str, file: h5py.File, count: int, shapes: Shapes, attributes: Mapping[str, Any]):
        self.path, self.count, self.shapes = path, count, dict(zip(FIELDS, shapes, strict=True))
        self.attributes: dict[str, Any] = dict(attributes)
        self.digest = ""
        self.written = 0
        self._datasets = {}
        for name, shape in self.shapes.items():
            options = {"dtype": np.float32, "chunks": (_chunk_rows(count, shape), *shape), "fletcher32": True}
            self._datasets[name] = file.create_dataset(name, (count, *shape), **options)

    def append(self, coefficient: np.ndarray, solution: np.ndarray) -> None:
        """Adds fields [n, *shape], stored as float32. Raises InputError for non-finite ones, ValueError for a wrong shape."""
        fields = dict(zip(FIELDS, (coefficient, solution), strict=True))
        stop = self.written + len(coefficient)
        for name, array in fields.items():
            if array.shape != (len(coefficient), *self.shapes[name]) or stop > self.count:
                whole = (self.count, *self.shapes[name])
                raise ValueError(f"{name} {array.shape} after {self.written} fields does not fit into {whole}")
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
            if not all_finite(array):
                raise InputError(f"{name} for {self.path} has NaN or infinite values; nothing was written")
            self._datasets[name][self.written : stop] = array
        self.written = stop

    def dataset(self, name: str) -> h5py.Dataset:
        """All fields of one kind, [N, *shape], once they are written."""
        return self._datasets[name]

    def _end(self) -> None:
        if self.written != self.count:
            raise ValueError(f"{self.path}: {self.written} of {self.count} fields were written")
        self.digest = arrays_digest(self._datasets)


@contextmanager
def pairs_writer(path: Path | str, count: int, shapes: Shapes | int, attributes: Mapping[str, Any]) -> Iterator[PairsWriter]:
    """Writes `count` pairs block by block; the file gets its name when the block ends with all of them, or is not left."""
    shapes = as_shapes(shapes)
    sizes = [4 * count * math.prod(shape) for shape in shapes]
    chunks = sum(-(-count // _chunk_rows(count, shape)) for shape in shapes)
    with new_file(path, sum(sizes), chunks) as file:
        writer = PairsWriter(path, file, count, shapes, attributes)
        yield writer
        writer._end()
        set_attributes(file, PAIRS, format_version(*shapes), writer.digest, writer.attributes)


def as_shapes(shapes: Shapes | int) -> Shapes:
    """Shapes of coefficient and solution; a number S stands for S x S nodes and one channel."""
    return ((shapes, shapes), (shapes, shapes)) if isinstance(shapes, int) else shapes


def write_pairs(path: Path | str, coefficient: np.ndarray, solution: np.ndarray, attributes: Mapping[str, Any]) -> str:
    """Writes `coefficient` and `solution` [N, *shape] as float32; returns their digest. Raises InputError if not finite."""
    with pairs_writer(path, len(coefficient), (coefficient.shape[1:], solution.shape[1:]), attributes) as writer:
        writer.append(coefficient, solution)
    return writer.digest


class PairsFile:
    """An open file of pairs, read by parts; made by `open_pairs`. datasets: coefficient and solution [N, *shape], by name."""

    def __init__(self, path: Path, file: h5py.File):
        self.path = path
        self.datasets = {name: file[name] for name in FIELDS}
        self.attributes = attributes_of(file)
        self.count = int(file[FIELDS[0]].shape[0])
        self.shapes: Shapes = (file[FIELDS[0]].shape[1:], file[FIELDS[1]].shape[1:])

    def read(self, indices: Sequence[int] | np.ndarray) -> Pairs:
        """The pairs of some fields, in the given order; nothing else is loaded."""
        with readable(self.path):
            arrays = {name: np.stack([data[int(i)] for i in indices]) for name, data in self.datasets.items()}
        check_finite(self.path, arrays)
        return Pairs(**arrays, attributes=self.attributes)

    def blocks(self, rows: np.ndarray | None = None, names: Sequence[str] = FIELDS) -> Iterator[tuple[np.ndarray, ...]]:
        """The arrays [n, *shape] of these names, of the fields `rows` in ascending order, or of all, block by block."""
        step = max(1, BLOCK_BYTES // (4 * max(map(math.prod, self.shapes))))
        wanted = np.arange(self.count) if rows is None else rows
        for start in range(0, self.count, step):
            chosen = wanted[(wanted >= start) & (wanted < start + step)]
            if len(chosen):
                first, stop = int(chosen[0]), int(chosen[-1]) + 1
                with readable(self.path):
                    arrays = {name: self.datasets[name][first:stop][chosen - first] for name in names}
                check_finite(self.path, arrays)
                yield tuple(arrays[name] for name in names)

    def verify(self) -> None:
        """Reads all fields against their digest. Raises InputError."""
        with readable(self.path):
            check_digest(self.path, self.datasets, self.attributes.get("digest"))


@contextmanager
def open_pairs(path: Path | str, shapes: Shapes | int | None = None, count: int | None = None) -> Iterator[PairsFile]:
    """Opens pairs to read parts of them; checks the format, and the fields' shapes and number (at least `count`) if given."""
    path = Path(path)
    with open_file(path, PAIRS) as file:
        with readable(path):
            check_names(path, file, FIELDS)
            _check_shapes(path, [file[name].shape for name in FIELDS], None if shapes is None else as_shapes(shapes), count)
            pairs = PairsFile(path, file)
        yield pairs


def _check_shapes(path: Path, found: Sequence[tuple[int, ...]], wanted: Shapes | None, count: int | None) -> None:
    if any(len(shape) < 2 or 0 in shape for shape in found) or found[0][0] != found[1][0]:
        raise InputError(f"{path}: shapes {found[0]} and {found[1]}; accepted: N fields in both, [N, S, S] or other nodes")
    if wanted is not None and [shape[1:] for shape in found] != list(wanted):
        have, need = (" and ".join(dict.fromkeys(_text(shape) for shape in part)) for part in ([f[1:] for f in found], wanted))
        raise InputError(f"{path} has {have} nodes, the study {need}; set data.resolution to the file's, or make the file again")
    if count is not None and found[0][0] < count:
        raise InputError(f"{path} holds {found[0][0]} fields, {count} are needed; set data.* to at most what it holds")


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def read_pairs(path: Path | str, shapes: Shapes | int | None = None, count: int | None = None) -> Pairs:
    """Reads all pairs; checks the fields' shapes and number (at least `count`) if given. Raises InputError."""
    with open_pairs(path, shapes, count):
        pass  # before the arrays are loaded
    arrays, attributes = read_arrays(path, PAIRS, FIELDS)
    return Pairs(arrays["coefficient"], arrays["solution"], attributes)


def write_samples(path: Path | str, samples: Samples) -> str:
    """Writes posterior samples; returns the digest of the arrays. Raises InputError for shapes that do not fit together."""
    arrays = {name: getattr(samples, name) for name in _SAMPLE_FIELDS}
    arrays |= {name: values for name in _OPTIONAL if (values := getattr(samples, name)) is not None}
    _check_sample_shapes(path, arrays)
    typed = {name: a if a.dtype == bool else a.astype(np.float32) for name, a in arrays.items()}
    if samples.seen is not None:
        typed |= {f"seen_{name}": array for name, array in vars(samples.seen).items() if array is not None}
    version = format_version(samples.coefficient_true.shape[1:], samples.solution_true.shape[1:])
    return write_arrays(path, SAMPLES, typed, samples.attributes, version)


def read_samples(path: Path | str) -> Samples:
    """Reads posterior samples. Samples themselves may be non-finite: such a field counts as failed."""
    parts = [f"seen_{name}" for name in Seen.__dataclass_fields__]
    arrays, attributes = read_arrays(path, SAMPLES, _SAMPLE_FIELDS, optional=[*_OPTIONAL, *parts], finite=False)
    seen = {name.removeprefix("seen_"): arrays.pop(name) for name in parts if name in arrays}
    _check_sample_shapes(path, arrays)
    return Samples(
        **arrays, seen=Seen(**seen) if {"values", "places", "weights", "units"} <= set(seen) else None, attributes=attributes
    )


def _check_sample_shapes(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    a, u = arrays["coefficient_true"].shape, arrays["solution_true"].shape
    for name, shape in (("coefficient_true", a), ("solution_true", u)):
        if len(shape) < 2:
            raise InputError(f"{path}: {name} {shape}; accepted: [n, S, S] or other nodes")
    count, samples = a[:1], arrays["coefficient"].shape[1:2]
    wanted = {"coefficient": (*count, *samples, *a[1:]), "solution": (*count, *samples, *u[1:])}
    wanted |= dict.fromkeys(("mean", "std"), a) | dict.fromkeys(("solution_true", "mask", "observation"), (*count, *u[1:]))
    for name, shape in wanted.items():
        if name in arrays and arrays[name].shape != shape:
            raise InputError(f"{path}: {name} {arrays[name].shape} does not fit the fields {a} and {u}; accepted: {shape}")
