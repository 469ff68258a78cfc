"""HDF5 files, written whole or not at all, and checked when opened.

Every file carries the attributes `format` (name of the layout), `format_version`, `package_version`, `digest` (SHA-256 of its
arrays), and the caller's own. Opening a file checks its format and costs milliseconds; whoever reads whole arrays also checks
their digest, and that all values are finite.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ddis
from ddis.errors import DamagedError, InputError
from ddis.files import atomic_path
from ddis.reading import REPAIR, cannot_read, hdf5_damage

FORMAT_VERSIONS = (1, 2)
BLOCK_BYTES = 1 << 24


def blocks(array: Any) -> Iterator[np.ndarray]:
    """The rows of an array or HDF5 dataset in blocks of about 16 MiB."""
    row = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    step = max(1, BLOCK_BYTES // max(1, row))
    for start in range(0, array.shape[0], step):
        yield array[start : start + step]


class Mapped:
    """An array or HDF5 dataset [N, ...] whose rows a function changes as they are read, for `blocks`."""

    def __init__(self, array: Any, function: Callable[[np.ndarray], np.ndarray]):
        first = function(array[:1])
        self.array, self.function = array, function
        self.dtype, self.shape = first.dtype, (array.shape[0], *first.shape[1:])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.function(self.array[rows])


def all_finite(array: Any) -> bool:
    """Whether an array or HDF5 dataset holds neither NaN nor infinite values."""
    return all(bool(np.isfinite(block).all()) for block in blocks(array))


def mean_and_std(array: Any) -> tuple[float, float]:
    """Over all values, in float64."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks(array)) / array.size
    square = sum(float(((block - np.float64(mean)) ** 2).sum()) for block in blocks(array)) / array.size
    return mean, math.sqrt(square)


def arrays_digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes, types and values of arrays or HDF5 datasets; it does not depend on how they are stored."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name}{arrays[name].shape}{arrays[name].dtype}".encode())
        for block in blocks(arrays[name]):
            sha.update(np.ascontiguousarray(block).data)
    return sha.hexdigest()


def set_attributes(file: h5py.File, layout: str, version: int, digest: str, attributes: Mapping[str, Any]) -> None:
    """Gives a file its own attributes, and the caller's: numbers, text, and what JSON can hold."""
    own = {"format": layout, "format_version": version, "package_version": ddis.__version__, "digest": digest}
    for key, value in {**attributes, **own}.items():
        file.attrs[key] = json.dumps(value) if isinstance(value, dict | list) else "" if value is None else value


def _reserve(path: Path, size: int) -> None:
    """Claims disk space for a file, or raises OSError."""
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot tell
            raise
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path | str, data_bytes: int, chunks: int = 0) -> Iterator[h5py.File]:
    """A new HDF5 file that gets its name when the block ends well.

    The space for its data is claimed first: HDF5 crashes the process at its end if a disk becomes full under it.
    """
    size = data_bytes + 256 * chunks + (1 << 20)
    with atomic_path(path) as temporary:
        _reserve(temporary, size)
        file = h5py.File(temporary, "w")
        try:
            _reserve(temporary, size)
            yield file
            file.flush()
            end = file.id.get_filesize()
        finally:
            try:
                file.close()
            except RuntimeError as error:
                raise OSError(str(error)) from error
        os.truncate(temporary, end)


def write_arrays(
    path: Path | str, layout: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], version: int = 1
) -> str:
    """Writes arrays and attributes as one HDF5 file, atomically; returns the digest of the arrays."""
    digest = arrays_digest(arrays)
    with new_file(path, sum(array.nbytes for array in arrays.values())) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        set_attributes(file, layout, version, digest, attributes)
    return digest


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """The attributes of an open file, as `set_attributes` was given them."""
    found = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
    found |= {key: json.loads(text) for key, text in found.items() if isinstance(text, str) and text[:1] in ("{", "[")}
    return {key: None if value == "" else value for key, value in found.items()}


def open_file(path: Path, layout: str) -> h5py.File:
    """An open file of a layout. Raises InputError if it is missing, truncated, foreign, or takes data from elsewhere."""
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the stage that makes it (snakemake does)") from error
    except Exception as error:  # a damaged file can fail anywhere in its parser
        raise cannot_read(path, error, hdf5_damage) from error
    try:
        with readable(path):
            check_self_contained(path, file)
            found, version = file.attrs.get("format"), file.attrs.get("format_version")
            if not isinstance(found, str) or found != layout or version not in FORMAT_VERSIONS:
                raise InputError(f"{path} is not a {layout} file of version 1 or 2 (format: {found!r}); name another one")
            _check_sizes(path, file)
    except InputError:
        file.close()
        raise
    return file


def _check_sizes(path: Path, file: h5py.File) -> None:
    """Before memory is asked for: arrays that are not compressed take their full size in the file."""
    for name, item in file.items():
        if isinstance(item, h5py.Dataset) and item.compression is None and item.id.get_storage_size() < item.nbytes:
            raise DamagedError(f"{path} is damaged: it holds only a part of {name} {item.shape}; {REPAIR}")


def check_self_contained(path: Path, file: h5py.File) -> None:
    """Raises InputError for a file whose top level takes data from elsewhere: a stranger's could have others on this disk read.

    That is what links, external storage and virtual data sets do; a data set that was copied whole does none of it.
    """
    for name in file:
        plain = file.id.links.get_info(name.encode("utf-8", "surrogateescape")).type == h5py.h5l.TYPE_HARD
        item = file[name] if plain else None
        if not plain or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise InputError(f"{path}: {name} takes its data from elsewhere, which is not accepted; store the data in the file")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Makes an InputError of whatever goes wrong in reading `path`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if "filter returned failure" in str(error):  # Fletcher32, the only one that we use
            raise DamagedError(f"{path} is damaged: a checksum of its fields is wrong; {REPAIR}") from error
        raise cannot_read(path, error, hdf5_damage) from error


def check_names(path: Path, file: h5py.File, names: Sequence[str]) -> None:
    """Raises InputError unless the file has an array of numbers of each name."""
    missing = [name for name in names if name not in file]
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}; it holds {', '.join(file) or 'nothing'}")
    for name in names:
        if not isinstance(file[name], h5py.Dataset) or file[name].dtype.kind not in "fiub" or not file[name].shape:
            raise InputError(f"{path}: {name} is no array of numbers")


def check_digest(path: Path, arrays: Mapping[str, Any], expected: Any) -> None:
    """Raises InputError if arrays are not those that the digest is of."""
    if arrays_digest(arrays) != expected:
        raise DamagedError(f"{path} is damaged: its arrays do not match their digest; {REPAIR}")


def check_finite(path: Path, arrays: Mapping[str, Any]) -> None:
    """Raises InputError for a value that is not finite."""
    bad = [name for name, array in arrays.items() if not all_finite(array)]
    if bad:
        raise InputError(f"{path} holds NaN or infinite values in {', '.join(bad)}; accepted: finite fields")


def read_attributes(path: Path | str, layout: str) -> dict[str, Any]:
    """The attributes of a file, after checking its format."""
    path = Path(path)
    with open_file(path, layout) as file, readable(path):
        return attributes_of(file)


def read_arrays(
    path: Path | str, layout: str, names: Sequence[str], optional: Sequence[str] = (), finite: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and attributes of a file. Raises InputError if it is missing, truncated, foreign, damaged or not finite."""
    path = Path(path)
    with open_file(path, layout) as file, readable(path):
        names = [*names, *(name for name in optional if name in file)]
        check_names(path, file, names)
        arrays = {name: file[name][...] for name in names}
        attributes = attributes_of(file)
        stored = set(file)
    if stored == set(arrays):
        check_digest(path, arrays, attributes.get("digest"))
    if finite:
        check_finite(path, arrays)
    return arrays, attributes
