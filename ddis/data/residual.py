"""How well pairs solve their equation, as one number per field, and whether their axes are in the right order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ddis.fields.bases import along_axes, interpolation_matrix
from ddis.pde.base import Problem

_TINY = torch.finfo(torch.float64).tiny
# Solutions of another scheme differ by a few percent, those of the wrong field by about 100 %.
_CLEARLY_BETTER = 5.0
# Orders that the equation cannot tell apart give the same difference but for the solver's round-off.
_SAME, _ROUND_OFF = 1e-3, 1e-9
SOLVED_FINER = 4  # test fields that a study takes the discretisation error of


def _norm(field: Tensor) -> Tensor:
    return torch.linalg.vector_norm(field.flatten(1), dim=1)


@torch.no_grad()
def relative_residual(problem: Problem, coefficient: Tensor, solution: Tensor) -> np.ndarray:
    """||r(a, u)|| / ||r(a, 0)|| of each of the fields [N, *shape]: [N], float64.

    r(a, 0) is what the solution has to balance: the source, in the linear problems.
    """
    a, u = coefficient.double(), solution.double()
    scale = _norm(problem.residual(a, torch.zeros_like(u)))
    return (_norm(problem.residual(a, u)) / scale.clamp_min(_TINY)).numpy()


@torch.no_grad()
def rounding_residual(problem: Problem, coefficient: Tensor, solution: Tensor) -> np.ndarray:
    """The relative residual [N] that float32 storage alone gives to fields that solve their equation exactly.

    Rounding moves a value v by at most half a unit in its last place, 2⁻²⁴ |v|. The residual moves with it, for a 5-point
    stencil by up to 8 (S-1)² 2⁻²⁴ max|u|: much, because a second difference takes nearly equal numbers from each other. The
    figure here is the change of the residual when a and u are moved by that much, up or down at random, for any equation.
    """
    a, u = coefficient.double(), solution.double()
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, field.shape, generator=generator, dtype=torch.float64) * 2 - 1 for field in (a, u)]
    moved = [field * (1 + 2.0**-24 * sign) for field, sign in zip((a, u), signs, strict=True)]
    scale = _norm(problem.residual(a, torch.zeros_like(u)))
    return (_norm(problem.residual(*moved) - problem.residual(a, u)) / scale.clamp_min(_TINY)).numpy()


@torch.no_grad()
def solver_difference(problem: Problem, coefficient: Tensor, solution: Tensor) -> np.ndarray:
    """||u - G(a)|| / ||G(a)|| of each of the fields [N, *shape], with G the problem's own solver: [N], float64."""
    own = problem.solve(coefficient.double())
    return (_norm(solution.double() - own) / _norm(own).clamp_min(_TINY)).numpy()


@torch.no_grad()
def inadmissible(problem: Problem, coefficient: Tensor) -> int | None:
    """The first of the fields [N, *shape] that is no coefficient of the problem (a negative permeability); None if all are.

    Fields that are not finite are left to other checks.
    """
    a = coefficient.double()
    kept = problem.constrain(problem.relax(a))
    wrong = ((kept - a).abs() > 1e-5 * a.abs().amax(dim=tuple(range(1, a.ndim)), keepdim=True)) | (kept.isnan() & a.isfinite())
    fields = wrong.flatten(1).any(dim=1).nonzero()
    return int(fields[0]) if len(fields) else None


@dataclass(frozen=True)
class EquationFit:
    """How pairs fit their equation: medians over the checked fields, and the largest residual."""

    fields: int
    residual: float
    largest_residual: float
    rounding: float
    difference: float

    @property
    def small(self) -> bool:
        """Whether the residual is what rounding to float32 explains, or a round-off of double precision."""
        return self.residual <= max(10 * self.rounding, 1e-9)


def equation_fit(problem: Problem, coefficient: Tensor, solution: Tensor) -> EquationFit:
    """That of fields [N, *shape]."""
    residual = relative_residual(problem, coefficient, solution)
    rounding = rounding_residual(problem, coefficient, solution)
    difference = solver_difference(problem, coefficient, solution)
    medians = (float(np.median(x)) for x in (rounding, difference))
    return EquationFit(len(residual), float(np.median(residual)), float(residual.max()), *medians)


def transposed(problem: Problem, coefficient: Tensor, solution: Tensor) -> str | None:
    """Which of the arrays [N, (C,) S, S] is transposed, judged by the solver; None if no other order fits clearly better.

    Where the equation is symmetric in x and y, transposing both arrays changes nothing and cannot be found, and transposing
    one is the same as transposing the other: both are named. Only fields on S x S nodes, of any number
    of channels, are judged.
    """
    if {field.shape[-2:] for field in (coefficient, solution)} != {(solution.shape[-1],) * 2}:
        return None
    orders = {
        "the solution is transposed against the coefficient": (coefficient, solution.mT),
        "the coefficient is transposed against the solution": (coefficient.mT, solution),
        "both arrays are transposed": (coefficient.mT, solution.mT),
    }
    return _better_order(problem, (coefficient, solution), orders)


def swapped(problem: Problem, coefficient: Tensor, solution: Tensor) -> str | None:
    """Whether arrays of one shape stand in each other's place, judged by the solver; None if that does not fit clearly better."""
    if coefficient.shape != solution.shape or inadmissible(problem, solution) is not None:
        return None
    other = float(np.median(solver_difference(problem, solution, coefficient)))
    fits = inadmissible(problem, coefficient) is None
    given = float(np.median(solver_difference(problem, coefficient, solution))) if fits else np.inf
    return "coefficient and solution are swapped" if other * _CLEARLY_BETTER < min(given, 1.0) else None


def moved_sample_axis(problem: Problem, coefficient: Tensor, solution: Tensor, fields: Sequence[int]) -> str | None:
    """Where the sample axis of arrays with as many fields as nodes per side is, if not in front; judged by some fields."""
    if not _square(coefficient, solution):
        return None
    chosen = torch.as_tensor(fields)
    arrays = {"both arrays": (True, True), "the coefficient": (True, False), "the solution": (False, True)}
    orders = {
        f"the sample axis of {name} is axis {axis} instead of 0": (
            (coefficient.movedim(axis, 0) if moved_a else coefficient)[chosen],
            (solution.movedim(axis, 0) if moved_u else solution)[chosen],
        )
        for axis in (2, 1)
        for name, (moved_a, moved_u) in arrays.items()
    }
    return _better_order(problem, (coefficient[chosen], solution[chosen]), orders)


def _square(*fields: Tensor) -> bool:
    """Whether all are [N, S, S]."""
    return {field.shape[1:] for field in fields} == {(fields[0].shape[-1],) * 2}


def _better_order(problem: Problem, given: tuple[Tensor, Tensor], orders: Mapping[str, tuple[Tensor, Tensor]]) -> str | None:
    before = float(np.median(solver_difference(problem, *given)))
    after = {what: float(np.median(solver_difference(problem, *pair))) for what, pair in orders.items()}
    best = min(after.values())
    if best * _CLEARLY_BETTER >= before:
        return None
    equal = [what for what, difference in after.items() if difference <= best * (1 + _SAME) + _ROUND_OFF]
    unknown = "; the arrays cannot tell which" if len(equal) > 1 else ""
    errors = f"difference to the solver's solutions {best:.2g} in the right order, {before:.2g} as given"
    return f"{', or '.join(equal)} ({errors}){unknown}"


@torch.no_grad()
def discretisation_error(problem: Problem, coefficient: Tensor) -> float | None:
    """Mean relative l2 difference of the solutions of coefficients [N, *shape] to those with half the spacing.

    The coefficient is interpolated to the finer nodes, linearly or, along periodic axes, by its Fourier series. None where the
    problem cannot be solved there, or where its finer domain is another one.
    """
    a, size = coefficient.double(), coefficient.shape[-1]
    grid = problem.coefficient_space(size).grid
    axes = list(zip(grid.shape, grid.periodic, strict=True))
    finer = tuple(2 * nodes if wraps else 2 * nodes - 1 for nodes, wraps in axes)
    fine_grid = problem.coefficient_space(finer[-1]).grid
    if grid.mask is not None and not np.array_equal(fine_grid.nodes[(slice(None, None, 2),) * len(axes)], grid.mask):
        return None
    if all(grid.periodic) or len(axes) == 1:
        fine = along_axes([_finer(nodes, wraps) for nodes, wraps in axes], a)
    else:
        channels = a.reshape(len(a), -1, *grid.shape)
        fine = functional.interpolate(channels, size=finer, mode="bilinear", align_corners=True).reshape(*a.shape[:-2], *finer)
    try:
        reference = problem.solve(fine)
    except ValueError:
        return None
    for axis in range(len(problem.solution_space(size).grid.shape)):
        reference = reference.movedim(-1 - axis, 0)[::2].movedim(0, -1 - axis)
    return float((_norm(problem.solve(a) - reference) / _norm(reference).clamp_min(_TINY)).mean())


def _finer(nodes: int, periodic: bool) -> Tensor:
    """Matrix from the values at an axis' nodes to those at half the spacing."""
    if periodic:
        return torch.from_numpy(interpolation_matrix(nodes, 2 * nodes))
    units = torch.eye(nodes, dtype=torch.float64)[None]
    return functional.interpolate(units, size=2 * nodes - 1, mode="linear", align_corners=True)[0].T
