"""docs/configuration.md names every key of a configuration with its default, docs/results.md every column of a table."""

import re
from pathlib import Path

import pytest

from ddis.evaluation import calibration_table, claims, limit, table
from ddis.pde import PROBLEMS
from ddis.sampling.methods import METHODS, load_method
from ddis.schema import json_schema
from ddis.stages import tune

DOCS = Path(__file__).parents[1] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
RESULTS = (DOCS / "results.md").read_text(encoding="utf-8")
SAME = {  # "read `joint.` for `prior.`"
    **{
        "joint": "prior",
        "flow.backbone": "prior.backbone",
        "flow.training": "prior.training",
        "operator.training": "prior.training",
    },
    **{"operators.NAME.training": "prior.training", "operators.NAME": "operator"},
}


def keys(schema, part, path=()):
    """(dotted key, default or None) of every setting below `part` of a JSON schema; NAME stands for names."""
    for option in [part, *part.get("anyOf", [])]:
        option = schema["$defs"][option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        for key, inner in option.get("properties", {}).items():
            yield ".".join((*path, key)), inner.get("default")
            yield from keys(schema, inner, (*path, key))
        for inner in (*option.get("patternProperties", {}).values(), option.get("additionalProperties")):
            if isinstance(inner, dict) and path[-1] not in ("at", "candidates"):
                yield from keys(schema, inner, (*path, "NAME"))


def documented(key):
    """The key that the page explains this one under."""
    for here, there in SAME.items():
        if f"{key}.".startswith(f"{here}.") and not key.endswith(".at"):
            return key.replace(here, there, 1)
    return key


def rows(page):
    """Name in backticks in the first cell -> the other cells, of every row of every table; rows of one name are joined."""
    found = {}
    for line in page.splitlines():
        first, *rest = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] or [""]
        for name in re.findall(r"`([^`]+)`", first):
            found[name] = found.get(name, []) + rest
    return found


def shown(default):
    """A default as the page writes it."""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_key_of_the_configuration_is_explained_with_its_default():
    schema, known = json_schema(), rows(CONFIGURATION)
    found = dict(keys(schema, schema))
    assert len(found) > 90
    for key, default in found.items():
        sections = {name for name in known if name.startswith(f"{documented(key)}.")}
        assert sections or documented(key) in known, key
        if not sections and isinstance(default, int | float | str) and not key.startswith("runs."):
            assert shown(default) in known[documented(key)], (key, default)


@pytest.mark.parametrize("name", METHODS.builtin)
def test_settings_of_every_method_are_listed_with_their_defaults(name):
    header, known = re.search(r"^\| key \|(.*`tikhonov`.*)\|$", CONFIGURATION, re.MULTILINE), rows(CONFIGURATION)
    assert header is not None
    columns = re.findall(r"`([^`]+)`", header[1])
    common = {"method", "operator", "samples", "fractions", "problems", "observations", "batch"}
    settings = {key: field for key, field in load_method(name).Settings.model_fields.items() if key not in common}
    assert name in columns or not settings
    for key, field in settings.items():
        default = "null" if field.default is None else shown(field.default)
        assert known[f"runs.NAME.{key}"][columns.index(name)] == default, key


@pytest.mark.parametrize("pde", PROBLEMS.builtin)
def test_parameters_of_every_problem_are_listed_with_their_defaults(pde):
    header, known = re.search(r"^\| key \|(.*`darcy`.*)\|$", CONFIGURATION, re.MULTILINE), rows(CONFIGURATION)
    assert header is not None
    columns = re.findall(r"`([^`]+)`", header[1])
    column = columns.index(pde) - len(columns)
    for key, field in PROBLEMS.load(pde).Parameters.model_fields.items():
        default = "null" if field.default is None else shown(field.default)
        assert known[f"problems.NAME.{key}"][column] == default, key


def test_every_column_of_the_tables_is_defined():
    known = rows(RESULTS)
    for columns in (
        table.COLUMNS,
        calibration_table.COLUMNS,
        limit.RATIO_COLUMNS,
        limit.SPLIT_COLUMNS,
        claims.COLUMNS,
        tune.COLUMNS,
    ):
        assert set(columns) <= set(known), set(columns) - set(known)
