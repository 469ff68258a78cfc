"""The tables of a study, back from their files."""

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ddis.errors import InputError
from ddis.files import read_text

NAMES = dict.fromkeys(("problem", "observation", "run", "percent"), "string")
"""Columns of names: text, also where a run is called 007 or NA."""


def read_table(path: Path | str, types: Mapping[str, str] = NAMES) -> pd.DataFrame:
    """A table of a study; an empty cell is missing, and in columns of numbers nan too.

    types: by column, other than the default all that there must be. Raises InputError.
    """
    text = read_text(path)
    try:
        columns = pd.read_csv(io.StringIO(text), nrows=0).columns
        lacking = [name for name in types if name not in columns] if types is not NAMES else []
        if lacking:
            raise ValueError(f"it lacks the columns {', '.join(lacking)}")
        missing = {name: [""] if types.get(name) == "string" else ["", "nan"] for name in columns}
        return pd.read_csv(io.StringIO(text), dtype=dict(types), keep_default_na=False, na_values=missing)
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
