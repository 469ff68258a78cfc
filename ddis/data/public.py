"""Pairs from the files of others: MATLAB (version 5, and 7.3, which is HDF5), HDF5, .npz, and two .npy.

Keys of the public DiffusionPDE files: see PUBLIC_KEYS; in all formats `coefficient` and `solution` are read too. Arrays are
[N, S, S]; navier-stokes solutions may be [N, S, S, snapshots], and the last snapshot is taken. A file of version 7.3 holds
the axes in reverse, and they are put back. Files are read as numbers only: nothing in them is unpickled or evaluated.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from ddis.data.axes import advice
from ddis.data.hdf5 import check_self_contained
from ddis.errors import DamagedError, InputError
from ddis.pde.base import Problem
from ddis.reading import cannot_read, file_kind, hdf5_damage, is_hdf5, matlab_damage

OWN_KEYS = ("coefficient", "solution")
PUBLIC_KEYS = {
    "poisson": ("f_data", "phi_data"),
    "helmholtz": ("f_data", "psi_data"),
    "darcy": ("thresh_a_data", "thresh_p_data"),
    "navier-stokes": ("a", "u"),
}


@dataclass(frozen=True)
class Field:
    """One array of a file, [N, S, S] in the order it is meant in; `rows(start, stop)` reads a part of it.

    given: its shape with all its axes; snapshots: whether the last of them may be time; name, matlab: how a user calls it, and
    in which language.
    """

    label: str
    shape: tuple[int, ...]
    rows: Callable[[int, int], np.ndarray]
    given: tuple[int, ...]
    snapshots: bool
    name: str
    matlab: bool


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
            with _readable(self.files[0], kind):
                fields = stack.enter_context(_READERS[kind](self.files, pde))
            yield fields


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in its parser
        raise cannot_read(path, error, hdf5_damage if kind == "HDF5" else None) from error


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
        kind = file_kind(head)
        if kind == "zip":
            return ".npz"
        if kind in (".npy", "MATLAB file of version 5"):
            return kind
        if kind in ("HDF5", "MATLAB file of version 7.3") or is_hdf5(path):
            return "HDF5"
    except OSError as error:
        raise cannot_read(path, error) from error
    found = kind or ("empty" if not head else "of unknown format")
    if path.suffix.lower() == ".mat" and len(head) > 20 and 0 <= int.from_bytes(head[:4], "little") < 5000:
        found = "a MATLAB file of version 4, which holds no arrays of three axes"
    raise InputError(f"{path} is {found}; accepted: .mat of version 5 or 7.3, HDF5, .npz, two .npy")


def _choose(path: Path, pde: str, names: Sequence[str]) -> tuple[str, str]:
    """The keys of coefficient and solution among the names in a file."""
    accepted = [keys for keys in (PUBLIC_KEYS.get(pde), OWN_KEYS) if keys]
    for keys in accepted:
        if set(keys) <= set(names):
            return keys
    wanted = ", or ".join(" and ".join(keys) for keys in accepted)
    raise InputError(f"{path} lacks arrays of {pde}: wanted {wanted}; it holds {', '.join(sorted(names)) or 'nothing'}")


def _field(path: Path, key: str, array: Any, kind: str, with_time: bool, reverse: bool = False) -> Field:
    """A view of an array or data set, in the order it is meant in."""
    label = f"{path}: {key}" if key else str(path)
    if not hasattr(array, "dtype") or array.dtype.kind not in "fiu" or not array.shape:
        raise InputError(f"{label} is not an array of real numbers")
    shape = tuple(int(n) for n in (array.shape[::-1] if reverse else array.shape))
    snapshots = with_time and len(shape) == 4

    def rows(start: int, stop: int) -> np.ndarray:
        with _readable(path, kind):
            if reverse:
                part = array[-1, ..., start:stop] if snapshots else array[..., start:stop]
                return np.ascontiguousarray(part.T)
            return np.ascontiguousarray(array[start:stop, ..., -1] if snapshots else array[start:stop])

    return Field(
        label, shape[:3] if snapshots else shape, rows, shape, with_time, key or path.stem, reverse or kind.startswith("MATLAB")
    )


@contextmanager
def _open_matlab(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    path = files[0]
    if damage := matlab_damage(path):  # scipy may crash on it
        raise DamagedError(f"{path} {damage}")
    keys = _choose(path, pde, [name for name, _, _ in scipy.io.whosmat(path)])
    arrays = scipy.io.loadmat(path, variable_names=keys)
    yield _pair(pde, "MATLAB file of version 5", [(path, key, arrays[key]) for key in keys])


@contextmanager
def _open_hdf5(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    path = files[0]
    with h5py.File(path, "r") as file:
        check_self_contained(path, file)
        keys = _choose(path, pde, [name for name, item in file.items() if isinstance(item, h5py.Dataset)])
        matlab = file.userblock_size >= 512 or any("MATLAB_class" in file[key].attrs for key in keys)
        yield _pair(pde, "HDF5", [(path, key, file[key]) for key in keys], matlab)


@contextmanager
def _open_npz(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    path = files[0]
    with np.load(path, allow_pickle=False) as archive:
        keys = _choose(path, pde, archive.files)
        yield _pair(pde, ".npz", [(path, key, archive[key]) for key in keys])


@contextmanager
def _open_npy(files: tuple[Path, ...], pde: str) -> Iterator[tuple[Field, Field]]:
    arrays = []
    for path in files:
        with _readable(path, ".npy"):
            arrays.append((path, "", np.load(path, mmap_mode="r", allow_pickle=False)))
    yield _pair(pde, ".npy", arrays)


def _pair(pde: str, kind: str, arrays: Sequence[tuple[Path, str, Any]], reverse: bool = False) -> tuple[Field, Field]:
    """(coefficient, solution); the last axis of a solution may be time in navier-stokes."""
    (a, u), timed = arrays, pde == "navier-stokes"
    return _field(*a, kind, False, reverse), _field(*u, kind, timed, reverse)


_READERS = {"MATLAB file of version 5": _open_matlab, "HDF5": _open_hdf5, ".npz": _open_npz, ".npy": _open_npy}


def check_shapes(coefficient: Field, solution: Field, problem: Problem) -> int:
    """The resolution S, the size of a coefficient's last axis. Raises InputError unless both are [N, *shape] of the problem."""
    for which, (field, partner) in enumerate(((coefficient, solution), (solution, coefficient))):
        if not _fits(field, problem, which):
            raise InputError(_about(field, partner, problem, which))
    size, count = coefficient.shape[-1], coefficient.shape[0]
    wanted = [(count, *shape) for shape in problem.shapes(max(size, 1))]
    if coefficient.shape != wanted[0] or solution.shape != wanted[1]:
        names = f"{coefficient.label} has shape {coefficient.given}, {solution.label} {solution.given}"
        same = "they must agree" if wanted[0] == wanted[1] else f"accepted for {size} nodes: {wanted[0]} and {wanted[1]}"
        raise InputError(f"{names}; {same}")
    if 0 in coefficient.shape:
        raise InputError(f"{coefficient.label} has shape {coefficient.shape}: no fields")
    return size


def _fits(field: Field, problem: Problem, which: int) -> bool:
    """Whether a field alone could be [N, *shape] of the problem's coefficient (0) or solution (1)."""
    if _square(problem, which):
        return len(field.shape) == 3 and field.shape[1] == field.shape[2]
    return 0 in field.shape or field.shape[1:] in _shapes(field, problem, which)


def _square(problem: Problem, which: int) -> bool:
    """Whether the fields have S x S nodes."""
    size = problem.minimum_resolution
    return problem.shapes(size)[which] == (size, size)


def _shapes(field: Field, problem: Problem, which: int) -> set[tuple[int, ...]]:
    """Shapes that a field of the problem has at the resolutions that its axes may be."""
    return {problem.shapes(size)[which] for size in field.given if size >= problem.minimum_resolution}


def _about(field: Field, partner: Field, problem: Problem, which: int) -> str:
    """What a field with the wrong axes is, and how to turn it."""
    if not _square(problem, which):
        small = " and ".join(str(["N", *problem.shapes(size)[which]]).replace("'", "") for size in (16, 32))
        hint = _order(field, _shapes(field, problem, which))
        return f"{field.label} has shape {field.given}; accepted: [N, *shape], such as {small}" + (f"; {hint}" if hint else "")
    accepted = "[N, S, S]"
    if field.snapshots:
        accepted += " or [N, S, S, T], of which the last snapshot is taken"
    known = (partner.shape[0], partner.shape[1]) if len(partner.shape) == 3 and partner.shape[1] == partner.shape[2] else None
    hint = advice(field.name, field.given, field.snapshots, known, field.matlab)
    hint = hint or advice(field.name, field.given, field.snapshots, None, field.matlab) or "the fields must be square"
    return f"{field.label} has shape {field.given}; accepted: {accepted}; {hint}"


def _order(field: Field, shapes: set[tuple[int, ...]]) -> str | None:
    """The expression that gives the array one of the shapes behind its number of fields; None if no order of axes does."""
    for order in permutations(range(len(field.given))):
        if tuple(field.given[axis] for axis in order[1:]) in shapes:
            turned = f"permute({field.name}, [{' '.join(str(axis + 1) for axis in order)}])"
            return f"{turned if field.matlab else f'numpy.transpose({field.name}, {order})'} turns it"
    return None
