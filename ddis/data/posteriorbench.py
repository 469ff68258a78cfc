"""PosteriorBench (arXiv 2609.20794): the cases of its release, and the files of samples that its evaluation reads.

A release is what `save_to_disk` of the package `datasets` writes: dataset_dict.json names the splits, each a folder whose
state.json names files of Arrow's stream format. A row is a case: the truth `a_ref` and its solution `u_ref` [1, S, S], draws
`posterior_samples_a` [K, S, S] or [K, 1, S, S] with `posterior_weights` [K], and `metadata.sensor_coords` [m, 2], row and column
of the observed nodes.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ddis.data.hdf5 import new_file
from ddis.data.public import Field
from ddis.errors import InputError
from ddis.files import read_json

FORMAT = "posteriorbench"
SPLITS = ("validation", "test")  # in the order in which the benchmark numbers their cases
DRAWS, WEIGHTS, METADATA, SENSORS = "posterior_samples_a", "posterior_weights", "metadata", "sensor_coords"
COLUMNS = ("a_ref", "u_ref", DRAWS, WEIGHTS, METADATA)


@dataclass(frozen=True)
class Task:
    """One of the benchmark's tasks: folder of its cases, names of its fields, and what its solution is times ours."""

    folder: str
    coefficient: str
    solution: str
    sign: float


TASKS = {
    "poisson": Task("Poisson_Multimode", "f", "phi", -1.0),  # -∇²φ = f
    "darcy": Task("Darcy_Multimode", "a", "u", 1.0),
}


def task_of(pde: str) -> Task:
    """Raises InputError for a problem that is none of the benchmark's."""
    if pde not in TASKS:
        raise InputError(f"problem {pde!r} is no task of {FORMAT} that is known here; accepted: {', '.join(TASKS)}")
    return TASKS[pde]


def case_name(pde: str, number: int) -> str:
    """How the benchmark calls the case number 0, 1, ..., of the validation split first."""
    return f"{pde}_{number + 1}"


class Cases:
    """All cases below a folder, read as they are asked for. Raises InputError for a folder without cases of the task."""

    def __init__(self, pde: str, path: Path):
        self.task = task_of(pde)
        self.folder = self._find(path)
        folders = [self.folder]
        if (index := self.folder / "dataset_dict.json").is_file():
            names = _listed(index, "splits")
            folders = [self.folder / name for name in sorted(names, key=lambda name: (name not in SPLITS, name != SPLITS[0]))]
        self.files = tuple(f / name for f in folders for name in _listed(f / "state.json", "_data_files"))
        try:
            self.table = pa.concat_tables([_table(file) for file in self.files])
        except pa.ArrowException as error:
            raise InputError(f"{self}: files of different versions: {error}") from error

    def __str__(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def _find(self, path: Path) -> Path:
        """The folder of the task's cases: the given one, or one below it."""
        name = self.task.folder
        others = {task.folder for task in TASKS.values()} - {name}
        if others & {path.name, path.parent.name}:
            raise InputError(f"{path} holds cases of another task; accepted: those of {name}, or another --pde")
        for folder in (path, path / name, path / "PosteriorDataset_hf" / name):
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                return folder
        raise InputError(
            f"{path}: no cases of {FORMAT}; accepted: a folder with dataset_dict.json or state.json, or with {name}/ in it"
        )

    @contextmanager
    def open(self, pde: str) -> Iterator[tuple[Field, Field]]:
        """(coefficient, solution) of all cases."""
        yield self._field("a_ref", 1.0), self._field("u_ref", self.task.sign)

    def _field(self, name: str, sign: float) -> Field:
        shape = (len(self), *self._plane(name, 0).shape)

        def rows(start: int, stop: int) -> np.ndarray:
            return np.stack([sign * self._plane(name, i) for i in range(start, stop)])

        return Field(f"{self}: {name}", shape, rows, shape, False, name, False)

    def _plane(self, name: str, row: int) -> np.ndarray:
        """One channel [S, S]."""
        array = self._entry(row, name)
        if array.ndim != 2 + (array.ndim == 3 and len(array) == 1):
            raise InputError(f"{self}: {name} of shape {array.shape}; accepted: [S, S] or [1, S, S], as in {self.task.folder}")
        return array.reshape(array.shape[-2:])

    def sensors(self, rows: range) -> np.ndarray:
        """Observed nodes [n, m, 2]."""
        found = self._stacked(rows, METADATA, SENSORS, "[m, 2], the same m in all cases", lambda array: array.shape[1:] == (2,))
        nodes = self._plane("a_ref", 0).shape
        if not ((found >= 0) & (found < nodes) & (found == np.floor(found))).all():
            raise InputError(f"{self}: {SENSORS} that are no nodes; accepted: rows and columns from 0, of {nodes} nodes")
        return found.astype(np.int64)

    def posterior(self, rows: range) -> tuple[np.ndarray, np.ndarray]:
        """Draws [n, K, S, S], float32, and their weights [n, K], of sum 1."""
        weights = self._stacked(rows, WEIGHTS, "", "[K], the same K in all cases", lambda array: array.ndim == 1).astype(
            np.float64
        )
        shape = (weights.shape[1], *self._plane("a_ref", 0).shape)
        usual = (shape, (shape[0], 1, *shape[1:]))
        draws = self._stacked(rows, DRAWS, "", f"{list(shape)}", lambda array: array.shape in usual).astype(np.float32)
        total = weights.sum(axis=1, keepdims=True)
        if not (np.isfinite(draws).all() and np.isfinite(weights).all() and (weights >= 0).all() and (total > 0).all()):
            raise InputError(f"{self}: draws or weights that cannot be; accepted: finite draws, weights of 0 or more, not all 0")
        return draws.reshape(len(rows), *shape), weights / total

    def _stacked(self, rows: range, name: str, key: str, accepted: str, fits: Any) -> np.ndarray:
        arrays = [self._entry(row, name, key) for row in rows]
        shapes = [array.shape for array in arrays]
        if len(set(shapes)) > 1 or not fits(arrays[0]):
            raise InputError(f"{self}: {key or name} of shape {max(shapes, key=shapes.count)}; accepted: {accepted}")
        return np.stack(arrays)

    def _entry(self, row: int, name: str, key: str = "") -> np.ndarray:
        """Nested lists as an array. Raises InputError for others."""
        scalar = self.table.column(name)[row]
        try:
            scalar = scalar[key] if key else scalar
            values = (scalar.value if isinstance(scalar, pa.ExtensionScalar) else scalar).values
            shape = [len(values)]
            while pa.types.is_nested(values.type):
                values = values.flatten()
                shape.append(len(values) // math.prod(shape))
            found = np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)
            if found.dtype.kind not in "iuf":
                raise TypeError(found.dtype)
            return found
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError, pa.ArrowException) as error:
            raise InputError(
                f"{self}: case {row}: no array in {key or name}; accepted: lists of numbers, as in {self.task.folder}"
            ) from error


def _listed(path: Path, key: str) -> list[Any]:
    """Names of files in the folder of a JSON file that lists them. Raises InputError where it does not."""
    content = read_json(path) if path.is_file() else None
    found = content.get(key) if isinstance(content, dict) else None
    names = [part.get("filename") if isinstance(part, dict) else part for part in found] if isinstance(found, list) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise InputError(f"{path}: no list {key}; accepted: a folder that `save_to_disk` of the package datasets wrote")
    return names


def _table(path: Path) -> pa.Table:
    """A file of cases, mapped into memory."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no file of Arrow's stream format, or is not whole: {error}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it holds {', '.join(table.column_names)}: another task, or another version"
        )
    return table.select(COLUMNS)


def write_generated(path: Path, name: str, samples: np.ndarray, attributes: Mapping[str, Any]) -> None:
    """Samples [K, S, S] of one case, of equal weights, as the benchmark's evaluation reads them."""
    with new_file(path, 2 * samples.nbytes) as file:
        file.create_dataset(name, data=samples.astype(np.float32))
        file.create_dataset("w", data=np.full(len(samples), 1 / len(samples), dtype=np.float32))
        file.attrs.update({"schema_version": "posteriorbench.generated.v1", "target_field": name, **attributes})
        file.attrs["target_fields"] = json.dumps([name])
