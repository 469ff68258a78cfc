"""What is told of settings that are refused: key, value, and what is accepted."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ddis.data.subsets import percent_name
from ddis.errors import InputError
from ddis.registry import Registry
from ddis.written import as_written

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")


class SettingError(InputError):
    """Refusals that each begin with a key, counted from where they were raised; `below` adds the keys above."""

    def __init__(self, *refusals: str):
        super().__init__("; ".join(refusals))
        self.refusals = refusals

    def below(self, key: str) -> "SettingError":
        return SettingError(*(f"{key}.{refusal}" for refusal in self.refusals)) if key else self


def below(key: str, call: Callable[..., R], *arguments: Any) -> R:
    """What a call returns; what it refuses is told with the key above it."""
    try:
        return call(*arguments)
    except SettingError as error:
        raise error.below(key) from error
    except InputError as error:
        raise SettingError(f"{key}: {error}") from error


@contextmanager
def told(before: str, after: str = "") -> Iterator[None]:
    """What the block refuses is told with these words around it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{before}{error}{after}") from error


def validated(model: type[M], given: Any, example: str) -> M:
    """`given` as the settings of a class. Raises SettingError."""
    if isinstance(given, model):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"{shown(given)}; accepted: settings such as {example}")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise SettingError(*(explain(model, each) for each in error.errors())) from error


def chosen(registry: Registry, base: type[M], given: Any, key: str, default: str) -> M:
    """Settings of the class of a registry, a subclass of `base`, that stands under `key` in them. Raises SettingError."""
    if isinstance(given, base):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"{shown(given)}; accepted: settings such as {{{key}: {default}}}")
    name = given.get(key, default)
    try:
        made = registry.load_class(name, base)
    except InputError as error:
        raise SettingError(str(error)) from error
    return validated(made, {**given, key: name}, f"{{{key}: {default}}}")


def explain(model: type[BaseModel], error: Any) -> str:
    """One pydantic error as `key: what is wrong (got value)`, with the accepted keys where one is unknown."""
    key = ".".join(_shown_key(part) for part in error["loc"])
    inner = error.get("ctx", {}).get("error")
    if isinstance(inner, SettingError):
        return str(inner.below(key))
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
