"""Poisson's equation of whose solution only the square is seen.

∇²u = a   in (0, L) x (0, 1),     u = 0   on the boundary,     v = u²
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddis.pde.base import Symmetry
from ddis.pde.poisson import Poisson

if TYPE_CHECKING:
    from torch import Tensor


class PoissonSquared(Poisson):
    """∇²u = a on a rectangle, u = 0 on the boundary; the solution is v = u², so that a and -a explain it equally well.

    The random fields a and -a are equally likely too: whatever is observed of v, the posterior has p(a | y) = p(-a | y), a mode
    at either sign, and mean 0. Where u changes its sign, data that are few or noisy may leave further modes.

    Grid, parameters and solver are those of poisson; second order in h. G is not linear, and its derivative 2u ∇⁻² vanishes at
    a = 0. The residual is v - G(a): v alone satisfies no equation in which a is linear. Good values: std(v) = 3e-5.
    """

    solution_label = "squared solution v"
    linear = False
    even = True
    local_residual = False

    @property
    def equation(self) -> str:  # type: ignore[override]
        return super().equation + ", v = u²"

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        return super().symmetries(pairs)  # the square of a moved solution is the moved square

    def solve(self, coefficient: Tensor) -> Tensor:
        return super().solve(coefficient).square()

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return solution - self.solve(coefficient)
