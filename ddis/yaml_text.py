"""YAML as it is read and written here: the core schema of YAML 1.2, with merge keys, and each key once.

`true` and `false` alone are truth values, so that `on`, `no` and `y` are text; 017 is 17, 1e-4 a number, 12:30 and 2024-01-31 are
text. Keys are text, as they are written. PyYAML parses; its own loaders follow YAML 1.1 and take the last of two equal keys.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ddis.errors import InputError
from ddis.files import read_text
from ddis.written import WrittenFloat, WrittenInt

MOST_CHARACTERS = 1_000_000
MOST_VALUES = 100_000
MOST_LEVELS = 50

_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_CORE = {
    _NULL: r"~|null|Null|NULL|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _INT: r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    _FLOAT: r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
    _MERGE: r"<<",
}
_PATTERNS = {tag: re.compile(rf"(?:{pattern})\Z", re.ASCII) for tag, pattern in _CORE.items()}


def read_yaml(path: Path | str) -> Any:
    """What a YAML file holds; of one whose name ends in .json, as JSON. Raises InputError with file and line."""
    text = read_text(path)
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{path} has {len(text)} characters; accepted: a configuration, of at most {MOST_CHARACTERS}")
    return parse_json(text, str(path)) if str(path).endswith(".json") else parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """What a YAML document holds; `source` is what it is called in messages. Raises InputError."""
    try:
        node = _Composer(text).get_single_node()
        return None if node is None else _Builder(source).build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        tab = "; indent with blanks, not with tabs" if "'\\t'" in (error.problem or "") else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{source} is not YAML{where}: {what}{tab}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not YAML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{source} is nested too deeply; accepted: at most {MOST_LEVELS} levels") from error


def parse_json(text: str, source: str) -> Any:
    """What a JSON text holds, each key once; `source` is what it is called in messages. Raises InputError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{source}: key {key!r} stands twice; accepted: each key once")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError(f"{source} is nested too deeply; accepted: at most {MOST_LEVELS} levels") from error


def parse_assignments(items: Iterable[str], option: str) -> dict[str, Any]:
    """{key: value} of the `KEY=VALUE` of an option; values are read as YAML. Raises InputError."""
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key or key in values:
            raise InputError(f"{option} {item}: accepted: KEY=VALUE, each key once")
        values[key] = parse_yaml(text, f"{option} {item}: {text!r}")
    return values


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it, table by table; anything but a table replaces what was there."""
    both = dict(base)
    for key, value in changes.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def yaml_text(value: Any, width: int = 80) -> str:
    """A value as YAML that readers of 1.1 and of 1.2 take for the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


class _Composer(yaml.BaseLoader):
    """From text to nodes with the core schema; PyYAML looks at a scalar's first character before its pattern."""


for _tag, _first in {_NULL: "~nN", _BOOL: "tTfF", _INT: "-+0123456789", _FLOAT: "-+.0123456789", _MERGE: "<"}.items():
    _Composer.add_implicit_resolver(_tag, _PATTERNS[_tag], list(_first) + [""] * (_tag == _NULL))


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that either version of YAML would take for something else."""


for _tag, _first in {_INT: "-+0123456789", _FLOAT: "-+.0123456789"}.items():
    _Dumper.add_implicit_resolver(f"{_tag}-1.2", _PATTERNS[_tag], list(_first))
_Dumper.add_representer(WrittenInt, lambda dumper, value: dumper.represent_int(int(value)))
_Dumper.add_representer(WrittenFloat, lambda dumper, value: dumper.represent_float(float(value)))


class _Builder:
    """From nodes to values, with what a parser alone does not see: keys that stand twice, and values that have no end."""

    def __init__(self, source: str):
        self.source, self.values = source, 0

    def build(self, node: yaml.Node, place: tuple[str, ...]) -> Any:
        """The value of a node; `place` are the keys that lead to it."""
        self.values += 1
        if self.values > MOST_VALUES or len(place) > MOST_LEVELS:
            most = f"{MOST_VALUES} values in {MOST_LEVELS} levels, with what aliases stand for"
            raise self.error(node, f"too much, or too deeply nested; accepted: {most}")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self.build(part, (*place, str(i))) for i, part in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self.mapping(node, place)
        raise self.error(node, f"the tag {node.tag!r} is not accepted")

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text = node.value
        if node.tag in (_STR, _MERGE):
            return text
        if node.tag not in _PATTERNS or not _PATTERNS[node.tag].match(text):
            raise self.error(node, f"{text!r} with the tag {node.tag!r} is not accepted")
        if node.tag == _NULL:
            return None
        return text.lower() == "true" if node.tag == _BOOL else self.number(node)

    def number(self, node: yaml.ScalarNode) -> WrittenInt | WrittenFloat:
        text = node.value.lower()
        try:
            if node.tag == _FLOAT:
                return WrittenFloat(text.replace(".inf", "inf").replace(".nan", "nan")).written_as(node.value)
            return WrittenInt(text, {"0o": 8, "0x": 16}.get(text[:2], 10)).written_as(node.value)
        except ValueError as error:  # Python reads no more than 4300 digits
            raise self.error(node, "a number of so many digits is not accepted") from error

    def mapping(self, node: yaml.MappingNode, place: tuple[str, ...]) -> dict[str, Any]:
        """Keys as text; those of merged tables come first, and give way to the table's own."""
        lines: dict[str, int] = {}
        own, base = {}, {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, "a key that is no text is not accepted")
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in lines:
                name, where = ".".join((*place, key)), f"in lines {lines[key]} and {line}"
                where = where if line > lines[key] else f"twice in line {line}"
                raise InputError(f"{self.source}: key {name!r} stands {where}; accepted: each key once")
            lines[key] = line
            if key_node.tag == _MERGE:
                base = self.merge(value_node, place)
            else:
                own[key] = self.build(value_node, (*place, key))
        return {**base, **own}

    def merge(self, node: yaml.Node, place: tuple[str, ...]) -> dict[str, Any]:
        """What `<<` stands for: a table, or a list of tables of which the first counts most."""
        found: dict[str, Any] = {}
        for part in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            table = self.build(part, (*place, "<<"))
            if not isinstance(table, dict):
                raise self.error(node, "<< stands for tables only")
            found |= table
        return found

    def error(self, node: yaml.Node, reason: str) -> InputError:
        return InputError(f"{self.source} is not YAML that is accepted: line {node.start_mark.line + 1}: {reason}")
