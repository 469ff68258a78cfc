"""Pairs from the files of others: MATLAB (version 5, and 7.3, which is HDF5), HDF5, .npz, and two .npy.

Keys of the public DiffusionPDE files: see PUBLIC_KEYS; in all formats `coefficient` and `solution` are read too. Arrays are
[N, S, S]; navier-stokes solutions may be [N, S, S, snapshots], and the last snapshot is taken. A file of version 7.3 holds
the axes in reverse, and they are put back. Files are read as numbers only: nothing in them is unpickled or evaluated.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from ddis.data.store import check_self_contained
from ddis.errors import InputError
from ddis.pde.base import Problem

OWN_KEYS = ("coefficient", "solution")
PUBLIC_KEYS = {
    "poisson": ("f_data", "phi_data"),
    "helmholtz": ("f_data", "psi_data"),
    "darcy": ("thresh_a_data", "thresh_p_data"),
    "navier-stokes": ("a", "u"),
}


@dataclass(frozen=True)
class Field:
    """One array of a file, [N, S, S] in the order it is meant in; `rows(start, stop)` reads a part of it."""

    label: str
    shape: tuple[int, ...]
    rows: Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Input:
    """One file with both arrays, or the two .npy files of coefficient and solution."""

    files: tuple[Path, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.files))

    @contextmanager
    def open(self, pde: str) -> Iterator[tuple[Field, Field]]:
        """(coefficient, solution). Raises InputError for what is no such file, or lacks an array."""
        kind = _kind(self.files[0])
        with ExitStack() as stack:
            with _readable(str(self), kind):
                fields = stack.enter_context(_READERS[kind](self.files, pde))
            yield fields


@contextmanager
def _readable(label: str, kind: str = "array") -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in its parser
        raise InputError(f"{label} cannot be read as {kind}: {error}; it may be truncated") from error


def group_inputs(paths: Sequence[Path]) -> list[Input]:
    """The inputs in order; .npy files belong together two by two. Raises InputError."""
    inputs, rest = [], list(paths)
    while rest:
        path = rest.pop(0)
        if _kind(path) != ".npy":
            inputs.append(Input((path,)))
            continue
        if not rest or _kind(rest[0]) != ".npy":
            raise InputError(f"{path} is one array; give two .npy files after each other, coefficient and solution")
        inputs.append(Input((path, rest.pop(0))))
    return inputs


def _kind(path: Path) -> str:
    """What a file is, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(128)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if head.startswith(b"\x93NUMPY"):
        return ".npy"
    if head.startswith(b"PK\x03\x04"):
        return ".npz"
    if head.startswith(b"MATLAB 5.0 MAT-file"):
        return "MATLAB file of version 5"
    if h5py.is_hdf5(path):
        return "HDF5"
    raise InputError(f"{path} is truncated or of unknown format; accepted: .mat of version 5 or 7.3, HDF5, .npz, two .npy")


def _choose(path: Path, pde: str, names: Sequence[str]) -> tuple[str, str]:
    """The keys of coefficient and solution among the names in a file."""
    accepted = [keys for keys in (PUBLIC_KEYS.get(pde), OWN_KEYS) if keys]
    for keys in accepted:
        if set(keys) <= set(names):
            return keys
    wanted = ", or ".join(" and ".join(keys) for keys in accepted)
    raise InputError(f"{path} lacks arrays of {pde}: wanted {wanted}; it holds {', '.join(sorted(names)) or 'nothing'}")


def _field(path: Path, key: str, array: Any, pde: str, reverse: bool = False) -> Field:
    """A view of an array or data set, in the order it is meant in."""
    label = f"{path}: {key}" if key else str(path)
    if not hasattr(array, "dtype") or array.dtype.kind not in "fiu":
        raise InputError(f"{label} is not an array of real numbers")
    shape = tuple(int(n) for n in (array.shape[::-1] if reverse else array.shape))
    snapshots = pde == "navier-stokes" and key in ("u", "solution") and len(shape) == 4

    def rows(start: int, stop: int) -> np.ndarray:
        with _readable(label):
            if reverse:
                part = array[-1, ..., start:stop] if snapshots else array[..., start:stop]
                return np.ascontiguousarray(part.T)
            return np.ascontiguousarray(array[start:stop, ..., -1] if snapshots else array[start:stop])

    return Field(label, shape[:3] if snapshots else shape, rows)


@contextmanager
def _open_matlab(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    path = files[0]
    keys = _choose(path, pde, [name for name, _, _ in scipy.io.whosmat(path)])
    arrays = scipy.io.loadmat(path, variable_names=keys)
    a, u = (_field(path, key, arrays[key], pde) for key in keys)
    yield a, u


@contextmanager
def _open_hdf5(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    path = files[0]
    with h5py.File(path, "r") as file:
        check_self_contained(path, file)
        keys = _choose(path, pde, [name for name, item in file.items() if isinstance(item, h5py.Dataset)])
        matlab = file.userblock_size >= 512
        a, u = (_field(path, key, file[key], pde, matlab or "MATLAB_class" in file[key].attrs) for key in keys)
        yield a, u


@contextmanager
def _open_npz(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    path = files[0]
    with np.load(path, allow_pickle=False) as archive:
        keys = _choose(path, pde, archive.files)
        a, u = (_field(path, key, archive[key], pde) for key in keys)
        yield a, u


@contextmanager
def _open_npy(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    a, u = (_field(path, "", np.load(path, mmap_mode="r", allow_pickle=False), pde) for path in files)
    yield a, u


_READERS = {"MATLAB file of version 5": _open_matlab, "HDF5": _open_hdf5, ".npz": _open_npz, ".npy": _open_npy}


def check_shapes(coefficient: Field, solution: Field, problem: Problem) -> int:
    """The resolution S, the size of a coefficient's last axis. Raises InputError unless both are [N, *shape] of the problem."""
    for field in (coefficient, solution):
        shape = field.shape
        axes = 1 + len(problem.shapes(problem.minimum_resolution)[0 if field is coefficient else 1])
        if len(shape) != axes:
            raise InputError(f"{field.label} has shape {shape}; accepted: {_expected(axes)}, one field after the other")
        if problem.shapes(shape[-1])[0] == (shape[-1],) * 2 and shape[1] != shape[2]:
            axis = {shape[1]: 2, shape[2]: 1}.get(shape[0])
            hint = "the fields must be square" if axis is None else f"its sample axis seems to be axis {axis}: move it to axis 0"
            raise InputError(f"{field.label} has shape {shape}; accepted: [N, S, S]; {hint}")
    size, count = coefficient.shape[-1], coefficient.shape[0]
    wanted = [(count, *shape) for shape in problem.shapes(max(size, 1))]
    if coefficient.shape != wanted[0] or solution.shape != wanted[1]:
        names = f"{coefficient.label} has shape {coefficient.shape}, {solution.label} {solution.shape}"
        same = "they must agree" if wanted[0] == wanted[1] else f"accepted for {size} nodes: {wanted[0]} and {wanted[1]}"
        raise InputError(f"{names}; {same}")
    if 0 in coefficient.shape:
        raise InputError(f"{coefficient.label} has shape {coefficient.shape}: no fields")
    return size


def _expected(axes: int) -> str:
    return "[N, S, S]" if axes == 3 else f"{axes} axes"
