"""Values at nodes of the solution that a file lists for every field: sensors of somebody else."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationInfo, field_validator

from ddis.arrays import whole_numbers
from ddis.errors import InputError
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.observe.base import Functionals, Sensors, SensorSettings
from ddis.provenance import input_digest
from ddis.written import Text

FIELD, PLACE = "field", ("i", "j")


class ListedSettings(SensorSettings):
    """file: a CSV file with columns field (0, 1, ...), i, j: the nodes at which each field of a split is observed.

    digest: of its content, on which results depend; whatever is given, it is that of the file.
    """

    file: Text
    digest: str | None = Field(None, validate_default=True)

    @field_validator("file")
    @classmethod
    def _readable(cls, value: str) -> str:
        input_digest(Path(value))
        return value

    @field_validator("digest", mode="after")
    @classmethod
    def _of_the_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        return input_digest(Path(info.data["file"])) if "file" in info.data else value


class Listed(Sensors):
    """places: nodes [n, m, 2], rows and columns, of n fields; those after them have the same again, in turn."""

    Settings = ListedSettings

    def __init__(self, places: ArrayLike, noise: ArrayLike = 0.0, assumed_noise: ArrayLike | None = None):
        super().__init__(noise, assumed_noise)
        self.places = whole_numbers("places", places)

    @classmethod
    def of_settings(cls, settings: ListedSettings) -> "Listed":
        return cls(read_places(Path(settings.file)), settings.noise, settings.assumed_noise)

    def functionals(self, grid: Grid) -> Functionals:
        self._flat(grid)
        nodes = int(np.prod(grid.shape))
        return Functionals(torch.arange(nodes)[:, None], None, nodes)

    def draw(self, grid: Grid, seed: int, *field: int) -> NDArray[np.int64]:
        return self._flat(grid)[field[0] % len(self.places)]

    def _flat(self, grid: Grid) -> NDArray[np.int64]:
        """The nodes [n, m]. Raises InputError for what is not on the grid."""
        if len(grid.shape) != 2 or (self.places < 0).any() or (self.places >= grid.shape).any():
            raise InputError(f"listed nodes: some are not on the grid; accepted: i and j from 0, of {grid} nodes")
        flat = np.asarray(np.ravel_multi_index(tuple(np.moveaxis(self.places, -1, 0)), grid.shape))
        if not grid.nodes.flatten()[flat].all() or (np.diff(np.sort(flat, axis=1), axis=1) == 0).any():
            raise InputError("listed nodes: some are outside the domain, or twice in a field; accepted: different ones inside it")
        return flat


def read_places(path: Path) -> NDArray[np.int64]:
    """Nodes [n, m, 2]. Raises InputError unless the fields 0, ..., n - 1 are listed with as many nodes each."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            header, *rows = list(csv.reader(file)) or [[]]
        except csv.Error as error:
            raise InputError(f"{path} cannot be read as a table: {error}") from error
    if tuple(header) != (FIELD, *PLACE) or not rows:
        raise InputError(
            f"{path}: columns {', '.join(header) or 'none'}; accepted: {FIELD}, {', '.join(PLACE)}, and a row for each node"
        )
    wrong = next((number for number, row in enumerate(rows, 2) if not _are_places(row)), None)
    if wrong is not None:
        raise InputError(f"{path}: {','.join(rows[wrong - 2])!r:.60} in row {wrong}; accepted: three whole numbers from 0")
    table = np.array(rows, dtype=np.int64)
    fields, counts = np.unique(table[:, 0], return_counts=True)
    if len(set(counts)) > 1 or (fields != np.arange(len(fields))).any():
        raise InputError(
            f"{path}: fields {fields.tolist()!s:.60} with {sorted(set(counts.tolist()))} nodes; accepted: 0, 1, ..., as many each"
        )
    return table[np.argsort(table[:, 0], kind="stable"), 1:].reshape(len(fields), -1, 2)


def _are_places(row: list[str]) -> bool:
    return len(row) == 1 + len(PLACE) and all(cell.isdecimal() and len(cell) < 10 for cell in row)


def listing(places: ArrayLike) -> str:
    """The text of a file of nodes [n, m, 2]."""
    rows = [f"{field},{i},{j}" for field, row in enumerate(np.asarray(places)) for i, j in row]
    return "\n".join([",".join((FIELD, *PLACE)), *rows, ""])
