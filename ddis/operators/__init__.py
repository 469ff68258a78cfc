"""Operators: from a coefficient to its solution."""

from ddis.operators.base import Operator
from ddis.operators.black_box import BlackBox as black_box
from ddis.operators.corrected import Corrected as corrected
from ddis.operators.solver import Solver as solver

__all__ = ["Operator", "black_box", "corrected", "solver"]
