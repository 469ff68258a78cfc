"""YAML as it is read: the core schema of YAML 1.2, keys as text and each once, and nothing that has no end."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ddis.cli import main
from ddis.config import Study
from ddis.errors import InputError
from ddis.files import write_text
from ddis.models.ids import ModelId
from ddis.yaml_text import merged, parse_assignments, parse_json, parse_yaml, yaml_text

TINY = (Path(__file__).parent / "tiny.yaml").read_text(encoding="utf-8")
MANY_ALIASES = "a0: &a0 [x, x, x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[yes, no, on, off, y, n, tRUE]", ["yes", "no", "on", "off", "y", "n", "tRUE"]),
        ("[true, True, TRUE, false, False]", [True, True, True, False, False]),
        ("[~, null, Null, '', '~']", [None, None, None, "", "~"]),
        ("[017, 0o17, 0x1F, -5, +5, 1_000, 0b11]", [17, 15, 31, -5, 5, "1_000", "0b11"]),
        ("[1e-4, 1e3, .5, 5., -.5E+3, 1.5]", [1e-4, 1e3, 0.5, 5.0, -500.0, 1.5]),
        ("[.inf, -.INF, nan, inf, NA]", [math.inf, -math.inf, "nan", "inf", "NA"]),
        ("[12:30:00, 190:20:30, 2024-01-31, '5']", ["12:30:00", "190:20:30", "2024-01-31", "5"]),
        ("{on: 1, 007: 2, 1e3: 3, ~: 4, null: 5, true: 6}", {"on": 1, "007": 2, "1e3": 3, "~": 4, "null": 5, "true": 6}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: {<<: [{b: 1}, {b: 2, c: 3}], d: 4}", {"a": {"b": 1, "c": 3, "d": 4}}),
    ],
)
def test_scalars_and_keys_are_those_of_yaml_1_2(text, value):
    found = parse_yaml(text, "x.yaml")
    assert found == value
    assert json.dumps(found) == json.dumps(value)  # True is not 1, 5 not 5.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"x\.yaml: key 'a' stands in lines 1 and 3; accepted: each key once"),
        ("a:\n  b: {c: 1, 'c': 2}", r"key 'a\.b\.c' stands twice in line 2"),
        ("a: &x {b: 1, b: 2}\nc: *x", r"key 'a\.b' stands twice in line 1"),
        ("a: {<<: {b: 1}, <<: {c: 2}}", r"key 'a\.<<' stands twice in line 1"),
        ("a: [{b: 1}, {b: 1, b: 2}]", r"key 'a\.1\.b' stands twice"),
        ("1: a\n'1': b", r"key '1' stands in lines 1 and 2"),
        ("a:\n\tb: 1", r"x\.yaml is not YAML in line 2, column 1: .*indent with blanks, not with tabs"),
        ("a: [1, 2", r"is not YAML in line 1, column \d+: .*expected ',' or ']'"),
        ("a: b: c", r"is not YAML in line 1, column 5: mapping values are not allowed here"),
        ("a: 1\0", r"is not YAML: unacceptable character #x0000"),
        ("a: 1\n---\nb: 2", r"is not YAML in line 2, column 1: .*another document"),
        ("a: !!timestamp 2024-01-31", r"line 1: .*timestamp' is not accepted"),
        ("a: !!int x", r"line 1: 'x' with the tag .* is not accepted"),
        ("a: {<<: 3}", r"line 1: << stands for tables only"),
        ("? [a]\n: 1", r"line 1: a key that is no text is not accepted"),
        ("a: &x [*x]", r"line 1: too much, or too deeply nested; accepted: 100000 values in 50 levels"),
        (MANY_ALIASES, r"too much, or too deeply nested"),
        ("[" * 100 + "]" * 100, r"too much, or too deeply nested"),
        ("[" * 20000, r"x\.yaml is nested too deeply; accepted: at most 50 levels"),
        ("a: " + "9" * 5000, r"line 1: a number of so many digits is not accepted"),
    ],
)
def test_what_is_ambiguous_or_endless_is_refused_by_line(text, message):
    with pytest.raises(InputError, match=message) as refused:
        parse_yaml(text, "x.yaml")
    assert len(str(refused.value).splitlines()) == 1


def test_json_with_a_key_twice_is_refused():
    with pytest.raises(InputError, match="x: key 'seed' stands twice"):
        parse_json('{"seed": 1, "seed": 2}', "x")
    with pytest.raises(InputError, match="x is nested too deeply"):
        parse_json("[" * 100_000, "x")


def test_text_that_looks_like_something_else_is_written_in_quotes():
    words = [
        "on",
        "no",
        "2024",
        "007",
        "089",
        "1e3",
        "0o17",
        "1_000",
        "~",
        "null",
        "1e-4",
        ".5",
        "2024-01-31",
        "12:30",
        "<<",
        "=",
    ]
    text = yaml_text({"words": words, **dict.fromkeys(words, 1)})
    assert parse_yaml(text, "x") == yaml.safe_load(text) == {"words": words, **dict.fromkeys(words, 1)}


def test_assignments_change_tables_key_by_key():
    changes = parse_assignments(["study=007", "data={test: 5}", "device="], "--config")
    assert merged({"study": "x", "data": {"test": 3, "train": 8}}, changes) == {
        "study": 7,
        "data": {"test": 5, "train": 8},
        "device": None,
    }
    for items in (["seed=1", "seed=2"], ["seed"], ["=3"]):
        with pytest.raises(InputError, match=r"--config .*: accepted: KEY=VALUE, each key once"):
            parse_assignments(items, "--config")
    with pytest.raises(InputError, match=r"--config a=\{b: '\{b' is not YAML"):
        parse_assignments(["a={b"], "--config")


def load(folder: Path, *changes: tuple[str, str]) -> Study:
    text = TINY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    write_text(folder / "c.yaml", text)
    return Study.load(folder / "c.yaml")


@pytest.mark.parametrize("name", ["2024", "007", "1e3", "on", "no", "y", "NA", "nan", "0x10", "1_000", "2024-01-31", "1.50"])
def test_names_that_look_like_something_else_are_names(tmp_path, name):
    study = load(
        tmp_path,
        ("study: tiny", f"study: {name}"),
        ("sparse:", f"{name}:"),
        ("  exact:", f"  {name}: {{method: exact}}\n  exact:"),
    )
    assert study.study == name and list(study.observations) == [name] and name in study.runs
    assert Study.load(parse_yaml(yaml_text(study.resolved()), "x")) == study
    assert Study.load(yaml.safe_load(yaml_text(study.resolved()))) == study


def test_a_problem_called_as_a_number_is_found_where_it_is_named(tmp_path):
    study = load(
        tmp_path,
        ("poisson: {pde", "2024: {pde"),
        ("exact: {", "exact: {problems: [2024], "),
        ("weight: 10", "weight: {2024: 10}"),
    )
    assert study.runs["exact"].problems == ("2024",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("study: tiny", "study: true", r"study: .*valid string, in quotes \(got True\)"),
        ("study: tiny", "study: ~", r"study: .*valid string, in quotes \(got None\)"),
        ("study: tiny", f"study: {'a' * 65}", r"study: String should have at most 64 characters"),
        ("study: tiny", r'study: "a\x07b"', r"study: .*pattern"),
        ("sparse:", "~:", r"observations\.~.*pattern"),
        ("seed: 1", '"seed ": 1', r"c\.yaml: 'seed ': unknown key"),
        ("seed: 1", "seed: 1\nseed: 2", r"c\.yaml: key 'seed' stands in lines 3 and 4"),
        ("ddis: {steps: 3", "exact: {samples: 4}\n  ddis: {steps: 3", r"c\.yaml: key 'runs\.exact' stands in lines 23 and 27"),
        ("  exact:", "  DDIS: {method: ddis}\n  exact:", r"ddis and DDIS would have one file name where capitals do not count"),
        ("at: {10: {steps: 6}}", "at: {10: {steps: 6}, 10.0: {steps: 7}}", r"joint\.at: percent 10 stands twice"),
        ("weight: 1,", "weight: {poisson: {10: 1, 10.0: 2, 100: 3}},", r"runs\.ddis\.weight.*percent 10 stands twice"),
        ("resolution: 16", "resolution: 1000000", r"data\.resolution: .*less than or equal to 4096"),
    ],
)
def test_settings_that_are_ambiguous_are_refused(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message) as refused:
        load(tmp_path, (old, new))
    assert len(str(refused.value).splitlines()) == 1


def test_names_whose_figures_would_have_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a/b-c and a-b/c would have one file name"):
        load(
            tmp_path,
            ("poisson: {pde: poisson}", "a: {pde: poisson}\n  a-b: {pde: poisson}"),
            ("sparse: {count: 20}", "b-c: {count: 20}\n  c: {count: 20}"),
        )


def test_percents_are_read_however_they_are_written(tmp_path):
    study = load(
        tmp_path, ("at: {10: {steps: 6}}", "at: {10.00: {steps: 6}}"), ("weight: 1,", "weight: {poisson: {1e1: 1, '100.0': 2}},")
    )
    assert study.training(ModelId("joint", "10")).steps == 6 and study.runs["ddis"].weight == {"poisson": {"10": 1, "100": 2}}


@pytest.mark.parametrize("key", [True, None, ("a",), 1j])
def test_keys_in_python_that_are_no_text_are_refused(key):
    with pytest.raises(InputError, match=r"key .*; accepted: text"):
        Study.load({**parse_yaml(TINY, "x"), key: 1})


def test_a_configuration_without_end_is_refused():
    content = parse_yaml(TINY, "x")
    content["runs"]["exact"] = content
    with pytest.raises(InputError, match="nested too deeply, or without end"):
        Study.load(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, which is no configuration"),
        (b"- 1\n", r"holds \[1\], which is no configuration"),
        (b"# Ger\xe4t\nstudy: x\n", r"is not UTF-8: byte 5 \(0xe4\) in line 1; save it as UTF-8"),
        (b"seed: 1\nseed: 2\n", r"key 'seed' stands in lines 1 and 2"),
        (b"a: " + b"x" * 2_000_000, "has 2000003 characters; accepted: a configuration"),
        (None, "cannot be read: Is a directory"),
    ],
)
@pytest.mark.parametrize("command", [["study"], ["tables"]])
def test_every_command_refuses_a_configuration_in_one_line(tmp_path, capsys, content, message, command):
    path = tmp_path / "c.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    assert main([*command, "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)


def test_a_configuration_in_utf_16_or_with_a_mark_is_the_same_study(tmp_path):
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "c.yaml").write_text(TINY, encoding=encoding)
        assert Study.load(tmp_path / "c.yaml") == Study.load(Path(__file__).parent / "tiny.yaml")


def test_what_is_written_does_not_depend_on_the_locale(tmp_path):
    """Bytes of config.yaml, in a language that Latin-1 cannot write, with and without UTF-8."""
    texts = set()
    write_text(tmp_path / "c.yaml", TINY)
    for number, settings in enumerate(
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"})
    ):
        place = tmp_path / str(number)
        place.mkdir()
        command = [sys.executable, "-m", "ddis", "study", "--config", "../c.yaml"]
        subprocess.run(command, cwd=place, env=os.environ | settings | {"PYTHONHASHSEED": str(number)}, check=True)
        texts.add((place / "results" / "tiny" / "config.yaml").read_bytes())
    assert len(texts) == 1
