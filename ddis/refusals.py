"""What is told of settings that are refused: key, value, and what is accepted."""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from ddis.data.subsets import percent_name
from ddis.errors import InputError
from ddis.written import as_written


def explain(model: type[BaseModel], error: Any) -> str:
    """One pydantic error as `key: what is wrong (got value)`, with the accepted keys where one is unknown."""
    key = ".".join(_shown_key(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ") + (", in quotes" if error["type"] == "string_type" else "")
    if error["type"] == "extra_forbidden":
        accepted = ", ".join(_keys_at(model, error["loc"][:-1]))
        return f"{key}: unknown key (got {shown(error['input'])}); accepted here: {accepted}"
    if error["type"] == "missing":
        return f"{key}: missing; see config/config.yaml for an example"
    given = "" if isinstance(error["input"], dict) else f" (got {shown(error['input'])})"
    return f"{key}: {message}{given}" if key else message


def _shown_key(part: int | str) -> str:
    """A key as it is, in quotes if one would not see all of it."""
    return part if isinstance(part, str) and part.isprintable() and part == part.strip() != "" else repr(part)


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    current: Any = model
    for part in location:
        current = get_args(current)[1] if get_origin(current) is dict else current.model_fields[part].annotation
    return list(getattr(current, "model_fields", {}))


def text_keys(value: Any) -> Any:
    """The same settings with every key as text: in Python the percent in `{1: 5, 100: 20}` is a number."""
    if isinstance(value, Mapping):
        texts = {_text_key(key): text_keys(part) for key, part in value.items()}
        if len(texts) < len(value):
            raise InputError(f"keys {shown(list(value))}: two of them are the same; accepted: each key once")
        return texts
    return [text_keys(part) for part in value] if isinstance(value, list | tuple) else value


def _text_key(key: Any) -> str:
    text = percent_name(key) if isinstance(key, float) else as_written(key)
    if not isinstance(text, str):
        raise InputError(f"key {shown(key)}; accepted: text (on, yes and the like are text only in quotes in YAML 1.1)")
    return text
