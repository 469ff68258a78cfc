"""The problems. To add one: write its file beside this one, and add its line here."""

from typing import Any

from pydantic import ValidationError

from ddis.errors import InputError, whole_number
from ddis.pde.base import Problem
from ddis.registry import Registry

PROBLEMS = Registry(
    "pde",
    "ddis.problems",
    {
        "poisson": "ddis.pde.poisson:Poisson",
        "helmholtz": "ddis.pde.helmholtz:Helmholtz",
        "darcy": "ddis.pde.darcy:Darcy",
        "navier-stokes": "ddis.pde.navier_stokes:NavierStokes",
        "burgers": "ddis.pde.burgers:Burgers",
        "darcy-source": "ddis.pde.darcy_source:DarcySource",
        "darcy-facies": "ddis.pde.darcy_facies:DarcyFacies",
        "poisson-squared": "ddis.pde.poisson_squared:PoissonSquared",
        "poisson-l-shape": "ddis.pde.poisson_l_shape:PoissonLShape",
    },
)


def make_problem(pde: str, parameters: dict[str, Any], resolution: int | None = None) -> Problem:
    """The problem `pde` with the given parameters. Raises InputError for an unknown pde or parameter, or a wrong resolution."""
    made = _made(pde, parameters)
    if resolution is not None:
        made.resolution = whole_number("resolution", resolution, 1)
        made.check(made.resolution)
    return made


def _made(pde: str, parameters: dict[str, Any]) -> Problem:
    problem = PROBLEMS.load_class(pde, Problem)
    try:
        return problem(problem.Parameters(**parameters))
    except ValidationError as error:
        first = error.errors()[0]
        key, accepted = ".".join(map(str, first["loc"])), ", ".join(problem.Parameters.model_fields) or "none"
        message = "unknown" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        what = (f"parameter {key!r}: " if key else "") + message
        raise InputError(f"pde {pde!r}: {what}; parameters: {accepted}") from error


def problem(pde: str, *, resolution: int, **parameters: Any) -> Problem:
    """The problem `pde` (a name, or module:Class) on S = `resolution` nodes per side. Raises InputError."""
    return make_problem(pde, parameters, resolution)
