"""The methods. To add one: write its file beside this one, and add its line here."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ddis.errors import InputError
from ddis.observe.base import Joined, Sensors
from ddis.pde.base import Problem
from ddis.refusals import SettingError
from ddis.registry import Registry
from ddis.sampling.base import Method, RunSettings

METHODS = Registry(
    "method",
    "ddis.methods",
    {
        "ddis": "ddis.sampling.ddis:DDIS",
        "ddis-gn": "ddis.sampling.ddis_gn:DDISGN",
        "ddis-dps": "ddis.sampling.ddis_dps:DDISDPS",
        "fundps": "ddis.sampling.fundps:FunDPS",
        "diffusionpde": "ddis.sampling.diffusionpde:DiffusionPDE",
        "joint-daps": "ddis.sampling.joint_daps:JointDAPS",
        "exact": "ddis.sampling.exact:Exact",
        "prior-mean": "ddis.sampling.prior_mean:PriorMean",
        "tikhonov": "ddis.sampling.tikhonov:Tikhonov",
        "es-mda": "ddis.sampling.es_mda:ESMDA",
        "eci": "ddis.sampling.eci:ECI",
        "ofm": "ddis.sampling.ofm:OFM",
    },
)


def load_method(name: str) -> type[Method]:
    """The class of a method. Raises InputError for an unknown one."""
    return METHODS.load_class(name, Method)


def operator_of(settings: RunSettings) -> str | None:
    """The operator that guides a run of these settings; None for methods without one."""
    method = load_method(settings.method)
    if not method.uses_operator:
        return None
    return "solver" if method.closed_form else settings.operator


def uses_pairs(settings: RunSettings) -> bool:
    """Whether anything that a run of these settings needs is trained on pairs."""
    return load_method(settings.method).prior not in (None, "coefficient") or operator_of(settings) not in (None, "solver")


def with_operator(settings: RunSettings, name: str) -> RunSettings:
    """The settings with the study's own operator, where they name none and one is used."""
    given = "operator" in settings.model_fields_set or not load_method(settings.method).uses_operator
    return settings if given else settings.model_copy(update={"operator": name})


def check_set(name: str, problem: Problem, sensors: Sensors | Joined) -> None:
    """Raises InputError if a method that sets observed values cannot set these."""
    if problem.constrained and any(part.of == "coefficient" for part in sensors.parts):
        raise InputError(
            f"method {name}: sets observed values, and those of a constrained coefficient are not linear in its free field; "
            "accepted: observations of the solution"
        )


def without_gradients() -> str:
    """Names of the methods that an operator without gradients can be used with."""
    return _named(lambda method: method.uses_operator and not method.gradients)


def correcting() -> str:
    """Names of the methods that can use a solver beside the operator."""
    return _named(lambda method: method.corrects)


def _named(has: Callable[[type[Method]], bool]) -> str:
    return ", ".join(name for name in METHODS.names() if has(load_method(name))) or "none"


def run_settings(run: str, values: dict[str, Any]) -> RunSettings:
    """Validated settings of a run; `method` defaults to its name. Raises SettingError: key, value and what is accepted."""
    values = {"method": run, **values}
    settings = load_method(values["method"]).Settings
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        # Of a union every member is tried: what fails deepest is the one that was meant, or what says more than its type.
        first = max(error.errors(), key=lambda e: (len(list(_keys(values, e["loc"]))), e["type"] == "value_error"))
        key, known = ".".join(_keys(values, first["loc"])), ", ".join(settings.model_fields)
        unknown = first["type"] == "extra_forbidden"
        message = "unknown key" if unknown else first["msg"].removeprefix("Value error, ")
        raise SettingError(f"{key}: {message} (got {first['input']!r}); settings of {values['method']}: {known}") from error


def _keys(values: dict[Any, Any], location: tuple[int | str, ...]) -> Iterator[str]:
    """The keys on the way to an error; pydantic's location also names the member of a union that was tried."""
    part: Any = values
    for key in location:
        if part is values or (isinstance(part, dict) and key in part):
            yield str(key)
            part = part.get(key)  # nothing lies below a key that is unknown
