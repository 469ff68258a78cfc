"""Random input to the readers: each gives a result or raises InputError, nothing else."""

import contextlib
import copy
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddis.config import Study
from ddis.data.observations import read_observations
from ddis.data.public import check_shapes, group_inputs
from ddis.data.store import Samples, read_pairs, read_samples, write_pairs, write_samples
from ddis.errors import InputError
from ddis.grid import Space, square
from ddis.models.checkpoint import load_tensors, save_tensors
from ddis.pde import make_problem
from ddis.yaml_text import parse_assignments, parse_yaml, read_yaml, yaml_text

FUZZ = settings(deadline=None, derandomize=True, database=None, max_examples=100)  # the same examples on every machine
TEXT = (Path(__file__).parent / "tiny.yaml").read_bytes()
TINY = parse_yaml(TEXT.decode(), "tiny.yaml")

numbers = st.integers(-1000, 1000) | st.integers() | st.sampled_from([10**6, 10**9, 2**63, 10**20, 10**400]) | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(scalars, lambda part: st.lists(part, max_size=3) | st.dictionaries(scalars, part, max_size=3), max_leaves=6)


def places(part: object, above: tuple = ()) -> list[tuple]:
    """The keys that lead to each part of a configuration."""
    inside = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [place for key, value in inside for place in ((*above, key), *places(value, (*above, key)))]


@FUZZ
@given(place=st.sampled_from(places(TINY)), value=values)
def test_a_configuration_with_any_value_changed_is_a_study_or_an_input_error(place, value):
    content = copy.deepcopy(TINY)
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with contextlib.suppress(InputError):
        assert isinstance(Study.load(content), Study)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut off, with a part left out, or with random bytes in it."""
    place = st.integers(0, len(content))
    cut = place.map(lambda end: content[:end])
    left_out = st.tuples(place, st.integers(1, 40)).map(lambda p: content[: p[0]] + content[sum(p) :])
    put_in = st.tuples(place, st.binary(max_size=8) | st.sampled_from(SIGNS)).map(
        lambda p: content[: p[0]] + p[1] + content[p[0] :]
    )
    return cut | left_out | put_in


SIGNS = [*rb"&a *a << ? : - | > % @ ! !!int # [ ] { } , ' ~ 0o 1e .5 --- ...".split(), b'"', b"\t", b"\n", b"\0", b"\xef\xbb\xbf"]


@settings(FUZZ, max_examples=300)
@given(content=damaged(TEXT) | st.binary(max_size=60) | st.lists(st.sampled_from(SIGNS), max_size=12).map(b" ".join))
def test_a_file_of_any_bytes_is_a_study_or_an_input_error(content):
    with TemporaryDirectory() as folder:
        path = Path(folder, "c.yaml")
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            assert isinstance(Study.load(path), Study)
        with contextlib.suppress(InputError):
            read_yaml(path)


@settings(FUZZ, max_examples=300)
@given(text=st.text(max_size=40) | st.lists(st.sampled_from(SIGNS), max_size=12).map(lambda parts: b" ".join(parts).decode()))
def test_any_text_is_yaml_or_an_input_error_and_comes_back_when_written(text):
    with contextlib.suppress(InputError):
        value = parse_yaml(text, "text")
        again = parse_yaml(yaml_text(value), "again")
        assert json.dumps(again) == json.dumps(value)
    with contextlib.suppress(InputError):
        parse_assignments([text, f"a={text}"], "--set")


# Observations, data, samples, networks, and the files of others


ROWS = [
    "x",
    "y",
    "value",
    "noise",
    ",",
    ";",
    "\t",
    "0.5",
    "0,25",
    "1.234,5",
    "-2e3",
    "nan",
    "1e999",
    "\n",
    "\r\n",
    "# ",
    "sep=;",
    '"',
    "é",
    "\0",
]
TABLES = [
    b"x,y,value\n0.5,0.25,1\n0.125,0.75,2\n",
    b"x,y,value,of\n0.5,0.25,1,\n0.5,0.25,2,Coefficient\n",
    "sep=;\nx;y;value\n0,5;0,25;1\n".encode("utf-16"),
]
PACKED = [gzip.compress(TABLES[0]), lzma.compress(TABLES[0])]


@settings(FUZZ, max_examples=300)
@given(
    content=st.sampled_from([*TABLES, *PACKED]).flatmap(damaged)
    | st.binary(max_size=60)
    | st.lists(st.sampled_from(ROWS), max_size=25).map(lambda parts: b"x;y;value\n" + "".join(parts).encode())
    | st.lists(st.sampled_from(ROWS), max_size=25).map(lambda parts: "".join(parts).encode())
)
def test_a_file_of_any_bytes_is_observations_or_an_input_error(content):
    with TemporaryDirectory() as folder, contextlib.suppress(InputError):
        path = Path(folder) / "points.csv"
        path.write_bytes(content)
        assert len(read_observations(path, (Space(square(16)),) * 2)) > 0


def read_import(*paths: Path) -> None:
    [item] = group_inputs(paths)
    problem = make_problem("poisson", {})
    with item.open("poisson") as (a, u):
        check_shapes(a, u, problem)
        a.rows(0, 1)
        u.rows(0, 1)


def flipped(content: bytes) -> st.SearchStrategy[bytes]:
    """The content with some bytes replaced."""

    def put(changes: dict[int, int]) -> bytes:
        changed = bytearray(content)
        for place, value in changes.items():
            changed[place] = value
        return bytes(changed)

    return st.dictionaries(st.integers(0, len(content) - 1), st.integers(0, 255), min_size=1, max_size=4).map(put)


def written() -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """A small file of every kind, and its reader."""
    fields = np.ones((2, 5, 5), np.float32)
    moments = dict.fromkeys(("mean", "std", "coefficient_true", "solution_true", "observation"), fields)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.h5", fields, fields, {"seed": 1})
        write_samples(folder / "samples.h5", Samples(coefficient=fields[:, None], mask=fields > 0, **moments))
        save_tensors(folder / "model.safetensors", {"w": torch.ones(30)}, {"configuration": "abc"})
        np.savez(folder / "pairs.npz", coefficient=fields, solution=fields)
        scipy.io.savemat(folder / "pairs.mat", {"coefficient": fields, "solution": fields})
        with h5py.File(folder / "plain.h5", "w", userblock_size=512) as file:
            file["coefficient"], file["solution"] = fields, fields
        readers = {"pairs.h5": read_pairs, "samples.h5": read_samples, "model.safetensors": load_tensors}
        readers |= {"pairs.npz": read_import, "pairs.mat": read_import, "plain.h5": read_import}
        return {name: ((folder / name).read_bytes(), read) for name, read in readers.items()}


WRITTEN = written()


@FUZZ
@given(data=st.data())
@pytest.mark.parametrize("name", list(WRITTEN))
def test_a_file_of_arrays_with_any_damage_is_read_or_an_input_error(name, data):
    content, read = WRITTEN[name]
    changed = data.draw(flipped(content) | damaged(content) | flipped(content[:200]).map(lambda head: head + content[200:]))
    with TemporaryDirectory() as folder, contextlib.suppress(InputError):
        path = Path(folder) / name
        path.write_bytes(changed)
        read(path)
