"""Random input to the readers: each gives a result or raises InputError, nothing else."""

import contextlib
import copy
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ddis.config import Study
from ddis.errors import InputError

FUZZ = settings(deadline=None, derandomize=True, database=None, max_examples=100)  # the same examples on every machine
TINY = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text(encoding="utf-8"))

scalars = st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats() | st.text(max_size=8)
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
