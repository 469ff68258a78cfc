"""Random input to the readers: each gives a result or raises InputError, nothing else."""

import contextlib
import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from ddis.config import Study
from ddis.errors import InputError
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
