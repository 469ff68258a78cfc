"""Operators: from a coefficient to its solution. `ddis.operator.solver(problem)` and so on make them in Python."""

from pathlib import Path

from ddis.operators.base import Operator
from ddis.operators.black_box import BlackBox as black_box
from ddis.operators.solver import Solver as solver

__all__ = ["Operator", "black_box", "load", "solver"]


def load(folder: Path | str) -> Operator:
    """The trained operator of a study's folder models/<problem>/operator-<percent>. Raises InputError."""
    from ddis.stages.networks import load_operator  # the configuration of the study says what it is a network of

    return load_operator(Path(folder))
