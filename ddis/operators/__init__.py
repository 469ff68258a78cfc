"""Operators: from a coefficient to its solution. `ddis.operator.solver(problem)` and so on make them in Python."""

from ddis.operators.base import Operator
from ddis.operators.solver import Solver as solver

__all__ = ["Operator", "solver"]
