"""The methods. To add one: write its file beside this one, and add its line here."""

from typing import Any

from pydantic import ValidationError

from ddis.errors import InputError
from ddis.registry import Registry
from ddis.sampling.base import Method, RunSettings

METHODS = Registry(
    "method",
    "ddis.methods",
    {
        "ddis": "ddis.sampling.ddis:DDIS",
        "ddis-gn": "ddis.sampling.ddis_gn:DDISGN",
        "fundps": "ddis.sampling.fundps:FunDPS",
        "exact": "ddis.sampling.exact:Exact",
    },
)


def load_method(name: str) -> type[Method]:
    """The class of a method. Raises InputError for an unknown one."""
    method = METHODS.load(name)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(f"method {name!r} is no subclass of ddis.sampling.base.Method")
    return method


def run_settings(run: str, values: dict[str, Any]) -> RunSettings:
    """Validated settings of a run; `method` defaults to its name. Raises InputError: key, value and what is accepted."""
    values = {"method": run, **values}
    settings = load_method(values["method"]).Settings
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("runs", run, *first["loc"])))
        known = ", ".join(settings.model_fields)
        raise InputError(f"{key}: {first['msg']} (got {first['input']!r}); settings of {values['method']}: {known}") from error
