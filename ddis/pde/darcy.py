"""Darcy flow through a random medium.

-∇·(a ∇u) = 1   in (0, 1)²,     u = 0   on the boundary
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ddis.errors import InputError
from ddis.fields.gaussian import neumann_spectrum, sample_neumann
from ddis.lazy import torch
from ddis.linear import conjugate_gradients
from ddis.pde.base import SQUARE, Problem, RandomFieldParameters, Symmetry
from ddis.pde.dirichlet import chunks, solve_interior

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-10
MOST_ITERATIONS = 1000


class DarcyParameters(RandomFieldParameters):
    """coefficient: two-valued (high where the random field is ≥ 0, else low) or log-normal (exp(scale x field))."""

    coefficient: Literal["two-valued", "log-normal"] = "two-valued"
    low: float = Field(3.0, gt=0)
    high: float = Field(12.0, gt=0)
    scale: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _used_and_ordered(self) -> DarcyParameters:
        unused = {"scale"} if self.coefficient == "two-valued" else {"low", "high"}
        for name in sorted(unused & self.model_fields_set):
            raise ValueError(f"{name} is not used with coefficient: {self.coefficient}; leave it out")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be less than high {self.high:g}")
        return self


class Darcy(Problem):
    """-∇·(a ∇u) = 1 on the unit square, u = 0 on the boundary; a takes two values, or is log-normal.

    Grid: S x S nodes, boundary included, h = 1/(S-1), a at the nodes. Scheme: flux form on the cell around each node,
    Σ over its four faces of a_face (u - u_neighbour) / h² = 1, symmetric and conservative. a_face is the harmonic mean
    2 a a' / (a + a') of its two nodes: each node's value fills its cell, so the flux passes two half cells in series, and it is
    exact in one dimension with jumps on faces. Solver: conjugate gradients in float64, preconditioned with the Laplacian in the
    sine basis (for log-normal a, scaled with 1/√a on both sides), until the residual has dropped by 1e-10 in the norm of the
    preconditioner, for each field by itself; about 21 iterations (two-valued) or 10 (log-normal). The relative error in the
    energy norm is then at most 1e-10 √κ, κ ≤ max a / min a for two values. Everything is dimensionless.

    Order: second in h for smooth a; first for a with jumps (measured 0.9 to 1.4), as they move to the nearest face. The public
    benchmark takes arithmetic means of an interpolated a; arithmetic means at our nodes would make u 0.6 % smaller at S = 128.

    Free fields (see Problem): two-valued coefficients are cut off at low and high, log-normal ones are exponentials, so every
    sample is positive.
    Parameters: coefficient (two-valued | log-normal), low and high, or scale: a = exp(scale x field), median 1; alpha, tau as for
    poisson. It fails for S < 4, for a ≤ 0 anywhere, and where 1,000 iterations do not suffice: two values of a contrast beyond
    about 1e4 (iterations grow like its root).
    Good values: 3 and 12 (benchmark): mean(u) = 0.0057, std(u) = 0.0038; contrast up to 1,000; scale up to 5; S from 16 to 256.
    """

    Parameters = DarcyParameters
    equation = "-∇·(a ∇u) = 1 in (0, 1)²"
    boundary = "u = 0 (Dirichlet)"
    solver = (
        "flux form with harmonic means on the faces; preconditioned conjugate gradients in float64, until the residual is 1e-10"
    )
    coefficient_label = "permeability a"
    solution_label = "pressure u"

    parameters: DarcyParameters

    @property
    def two_valued(self) -> bool:
        return self.parameters.coefficient == "two-valued"

    @property
    def distribution(self) -> str:  # type: ignore[override]
        p = self.parameters
        value = f"{p.high:g} where g ≥ 0, else {p.low:g}" if self.two_valued else f"exp({p.scale:g} g)"
        return f"a = {value}; g Gaussian, zero-Neumann cosine modes of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean"

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        p = self.parameters
        field = sample_neumann(indices, resolution, seed, p.alpha, p.tau)
        return self.from_latent(field) if self.two_valued else torch.exp(p.scale * field)

    def solve(self, coefficient: Tensor) -> Tensor:
        return solve_flux(coefficient, torch.ones_like(coefficient, dtype=torch.float64), smooth=not self.two_valued)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return flux_divergence(*face_means(coefficient), solution) - 1

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        return SQUARE

    def constrain(self, free: Tensor) -> Tensor:
        return free.clamp(self.parameters.low, self.parameters.high) if self.two_valued else free.exp()

    def relax(self, coefficient: Tensor) -> Tensor:
        return coefficient if self.two_valued else coefficient.log()

    def prior_spectrum(self, resolution: int) -> Tensor | None:
        return None if self.two_valued else self.latent_spectrum(resolution)

    def latent_spectrum(self, resolution: int) -> Tensor:
        p = self.parameters
        scale = 1.0 if self.two_valued else p.scale
        return scale**2 * torch.from_numpy(neumann_spectrum(resolution, p.alpha, p.tau))

    def from_latent(self, field: Tensor) -> Tensor:
        p = self.parameters
        return p.low + (p.high - p.low) * (field >= 0).to(field) if self.two_valued else self.constrain(field)


def face_means(coefficient: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonic means of a [..., S, S] on the faces between nodes: along x [..., S-1, S-2] and along y [..., S-2, S-1]."""
    left, right = coefficient[..., :-1, 1:-1], coefficient[..., 1:, 1:-1]
    lower, upper = coefficient[..., 1:-1, :-1], coefficient[..., 1:-1, 1:]
    return 2 * left * right / (left + right), 2 * lower * upper / (lower + upper)


def flux_divergence(faces_x: Tensor, faces_y: Tensor, field: Tensor) -> Tensor:
    """-∇·(a ∇u) [..., S-2, S-2] of a field u [..., S, S], with a on the faces (see `face_means`)."""
    flux_x = faces_x * field[..., 1:-1].diff(dim=-2)
    flux_y = faces_y * field[..., 1:-1, :].diff(dim=-1)
    return -(flux_x.diff(dim=-2) + flux_y.diff(dim=-1)) * (field.shape[-1] - 1) ** 2


def solve_flux(coefficient: Tensor, source: Tensor, smooth: bool = False) -> Tensor:
    """Solves -∇·(a ∇u) = f at the interior nodes in flux form, u = 0 on the boundary nodes.

    Args:
        coefficient: a [..., S, S], positive.
        source: f [..., S, S]; its boundary nodes are not used.
        smooth: whether a has no jumps; then fewer iterations suffice. Changes the solution within the tolerance only.

    Returns:
        u [..., S, S], in the dtype and on the device of `coefficient` (float64 inside); differentiable, any number of times.

    Raises:
        InputError: for coefficients that are not positive and finite, or of a contrast that the iteration cannot handle.
    """
    size = coefficient.shape[-1]
    a = coefficient.reshape(-1, size, size).double()
    if not bool((a > 0).all() and a.isfinite().all()):
        field = int((~((a > 0) & a.isfinite())).flatten(1).any(dim=1).nonzero()[0])
        low, high = a[field].min().item(), a[field].max().item()
        raise InputError(f"coefficient of field {field}: values from {low:.3g} to {high:.3g}; accepted: positive and finite")
    inner = source.expand_as(coefficient).reshape(-1, size, size)[:, 1:-1, 1:-1].double()
    solution: Tensor = _differentiable_flux_solve().apply(*face_means(a), inner, smooth)
    return torch.nn.functional.pad(solution, (1, 1, 1, 1)).reshape(coefficient.shape).to(coefficient.dtype)


@cache
def _differentiable_flux_solve() -> type[torch.autograd.Function]:
    """u [B, M, M] with A u = f. By the implicit function theorem, with λ = A⁻¹ g for a gradient g of the loss with respect to u,
    the gradient is λ with respect to f and -δλ δu / h² with respect to a face, δ the difference across it.
    """

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, faces_x: Tensor, faces_y: Tensor, source: Tensor, smooth: bool) -> Tensor:
            ctx.smooth = smooth
            solution = solve_faces(faces_x, faces_y, source, smooth)
            ctx.save_for_backward(faces_x, faces_y, solution)
            return solution

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
            faces_x, faces_y, solution = ctx.saved_tensors
            adjoint: Tensor = Solve.apply(faces_x, faces_y, gradient, ctx.smooth)
            u, v = torch.nn.functional.pad(solution, (1, 1, 1, 1)), torch.nn.functional.pad(adjoint, (1, 1, 1, 1))
            scale = -float((u.shape[-1] - 1) ** 2)
            gradient_x = scale * u[..., 1:-1].diff(dim=-2) * v[..., 1:-1].diff(dim=-2)
            gradient_y = scale * u[..., 1:-1, :].diff(dim=-1) * v[..., 1:-1, :].diff(dim=-1)
            return gradient_x, gradient_y, adjoint, None

    return Solve


def solve_faces(faces_x: Tensor, faces_y: Tensor, source: Tensor, smooth: bool) -> Tensor:
    """u [N, M, M] for a on the faces [N, M+1, M] and [N, M, M+1] and a source [N, M, M], a few fields at a time."""
    solution = torch.empty_like(source)
    for part in chunks(source):
        solution[part] = solve_interior_flux(faces_x[part], faces_y[part], source[part], smooth)
    return solution


class _FluxOperator:
    """p -> h² A p on interior fields [B, M, M], with its memory allocated once: A is applied some twenty times per solve."""

    def __init__(self, faces_x: Tensor, faces_y: Tensor):
        self.faces = faces_x, faces_y
        batch, interior = faces_x.shape[0], faces_x.shape[-1]
        self.padded = faces_x.new_zeros(batch, interior + 2, interior + 2)
        self.flux_x, self.flux_y = torch.empty_like(faces_x), torch.empty_like(faces_y)
        self.result = faces_x.new_empty(batch, interior, interior)

    def __call__(self, field: Tensor) -> Tensor:
        p, out = self.padded, self.result
        p[:, 1:-1, 1:-1] = field
        torch.sub(p[:, :-1, 1:-1], p[:, 1:, 1:-1], out=self.flux_x).mul_(self.faces[0])
        torch.sub(p[:, 1:-1, :-1], p[:, 1:-1, 1:], out=self.flux_y).mul_(self.faces[1])
        torch.sub(self.flux_x[:, 1:], self.flux_x[:, :-1], out=out)
        return out.add_(self.flux_y[:, :, 1:]).sub_(self.flux_y[:, :, :-1])


def solve_interior_flux(faces_x: Tensor, faces_y: Tensor, source: Tensor, smooth: bool) -> Tensor:
    """u [B, M, M] of -∇·(a ∇u) = source [B, M, M] at the interior nodes, by conjugate gradients.

    The preconditioner is (-Δ)⁻¹, or for smooth a, where -∇·(a ∇u) = √a (-Δ + (Δ√a)/√a) √a u, a^(-1/2) (-Δ)⁻¹ a^(-1/2). It is
    applied in float32: it need not be exact, and costs half.
    Raises InputError if a field has not converged after 1,000 iterations.
    """
    around = (faces_x[:, 1:] + faces_x[:, :-1] + faces_y[:, :, 1:] + faces_y[:, :, :-1]) / 4
    weight = around.rsqrt() if smooth else None

    def precondition(r: Tensor) -> Tensor:
        if weight is None:
            return solve_interior(r, torch.float32).double().neg_()
        return solve_interior(r * weight, torch.float32).double().mul_(weight).neg_()

    def solved(residual: Tensor, rho: Tensor, start: Tensor) -> Tensor:
        return ~(rho > TOLERANCE**2 * start)

    right, operator = source / (source.shape[-1] + 1) ** 2, _FluxOperator(faces_x, faces_y)
    u, left = conjugate_gradients(operator, right, precondition, solved, MOST_ITERATIONS, axes=(1, 2))
    if bool(left.any()):
        raise InputError(
            f"no convergence in {MOST_ITERATIONS} iterations for a coefficient on faces from {float(faces_x.min()):.3g} to "
            f"{float(faces_x.max()):.3g}; accepted: a contrast of less than about 1e4"
        )
    return u
