"""DDIS: decoupled diffusion inverse solver, from datasets to the exact posterior.

problem = ddis.problem("poisson", resolution=32)
posterior = ddis.Posterior(problem, ddis.prior.gaussian(problem), ddis.operator.solver(problem), sensors, values)
result = posterior.sample("ddis-gn", samples=64, seed=0)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddis import observe, operator, prior
    from ddis.pde import problem
    from ddis.posterior import Posterior
    from ddis.stages.solve import solve

__all__ = ["Posterior", "observe", "operator", "prior", "problem", "solve"]

__version__ = "0.1.0"

_LAZY = {
    "Posterior": "ddis.posterior:Posterior",
    "observe": "ddis.observe",
    "operator": "ddis.operator",
    "prior": "ddis.prior",
    "problem": "ddis.pde:problem",
    "solve": "ddis.stages.solve:solve",
}


def __getattr__(name: str) -> Any:
    """The public interface, imported when it is asked for: it needs seconds, and most of the package does not need it."""
    if name not in _LAZY:
        raise AttributeError(f"module 'ddis' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
