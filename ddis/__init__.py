"""DDIS: decoupled diffusion inverse solver, from datasets to the exact posterior."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddis.stages.solve import solve as solve

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`ddis.solve`, imported when it is asked for: it needs seconds, and most of the package does not need it."""
    if name == "solve":
        from ddis.stages.solve import solve

        return solve
    raise AttributeError(f"module 'ddis' has no attribute {name!r}")
