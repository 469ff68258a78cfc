"""The Navier-Stokes equations in two dimensions, in vorticity form, from a Gaussian random initial vorticity.

∂w/∂t + v·∇w = ν ∇²w + f   in [0, 1)², periodic,     ∇²ψ = w,   v = (-∂ψ/∂y, ∂ψ/∂x),     w(0) = a,   u = w(T)

Space. With a skew-symmetric difference D on the periodic grid, here the five-point difference of fourth order

    D f_i = (8 (f_{i+1} - f_{i-1}) - (f_{i+2} - f_{i-2})) / 12h,

the mean of the three forms of the advection term that are equal before they are discretised,

    J(ψ, w) = 1/3 [ (ψ_x w_y - ψ_y w_x) + ((ψ w_y)_x - (ψ w_x)_y) + ((w ψ_x)_y - (w ψ_y)_x) ],

has sum J = sum ψ J = sum w J = 0 for any ψ and w: summation by parts turns each form into another. Mean vorticity, enstrophy and,
with ψ from a symmetric Laplacian, energy are conserved before time is discretised (Arakawa, J. Comput. Phys. 1, 119, 1966, whose
scheme is this with differences of second order; Sorgentone, La Cognata and Nordström, J. Comput. Phys. 301, 167, 2015, show it
for any D of this kind). The Laplacian is the second difference of fourth order; the FFT diagonalises it exactly, in the stream
function as in the viscous term.

Time. Runge-Kutta of fourth order for exp(-ν t ∇²) w: the viscous term is exact, and the step is bound by advection alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.errors import InputError
from ddis.fields.bases import interpolation_matrix
from ddis.fields.gaussian import periodic_spectrum, sample_periodic
from ddis.lazy import torch
from ddis.pde.base import SQUARE, Problem, RandomFieldParameters, Symmetry

if TYPE_CHECKING:
    from torch import Tensor

# Runge-Kutta 4 is stable up to 2 sqrt(2) on the imaginary axis, where D reaches 1.372 / h.
STABLE_COURANT = 2.06
COURANT = 1.4
MAXIMUM_STEPS = 10_000


def difference(field: Tensor, dim: int) -> Tensor:
    """-12h D of fields [..., S, S] along `dim` (-2: x, -1: y), periodic."""
    size = field.shape[dim]
    padded = torch.cat([field.narrow(dim, size - 2, 2), field, field.narrow(dim, 0, 2)], dim)

    def centred(k: int) -> Tensor:
        return padded.narrow(dim, 2 + k, size) - padded.narrow(dim, 2 - k, size)

    return torch.sub(centred(2), centred(1), alpha=8)


def _advection(psi: Tensor, w: Tensor, gradients: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """432 h² J(ψ, w), with -12h times (ψ_x, ψ_y, w_x, w_y) given."""
    psi_x, psi_y, w_x, w_y = gradients
    along_x = torch.addcmul(psi * w_y, w, psi_y, value=-1)
    along_y = torch.addcmul(w * psi_x, psi, w_x, value=-1)
    pointwise = torch.addcmul(psi_x * w_y, psi_y, w_x, value=-1)
    return pointwise + difference(along_x, -2) + difference(along_y, -1)


def jacobian(psi: Tensor, w: Tensor) -> Tensor:
    """J(ψ, w) = ψ_x w_y - ψ_y w_x of fields [..., S, S] with h = 1/S, to fourth order; sums of J, ψ J and w J vanish."""
    gradients = (difference(psi, -2), difference(psi, -1), difference(w, -2), difference(w, -1))
    return _advection(psi, w, gradients) * (w.shape[-1] ** 2 / 432)


@lru_cache(maxsize=16)
def laplacian_symbol(size: int, device: torch.device) -> Tensor:
    """Eigenvalues [S, S//2 + 1] (float64, not positive) of the fourth-order Laplacian, in the order of `rfft2`."""
    theta = 2 * torch.pi * torch.fft.fftfreq(size, dtype=torch.float64, device=device)
    axis = -(size**2) * (15 - 16 * torch.cos(theta) + torch.cos(2 * theta)) / 6
    axis[0] = 0.0
    return axis[:, None] + axis[None, : size // 2 + 1]


@lru_cache(maxsize=16)
def _inverse_laplacian_symbol(size: int, device: torch.device) -> Tensor:
    inverse = 1 / laplacian_symbol(size, device)
    inverse[0, 0] = 0.0
    return inverse


def stream_function(w: Tensor) -> Tensor:
    """ψ [..., S, S] of zero mean with ∇²ψ = w - mean(w)."""
    size = w.shape[-1]
    return torch.fft.irfft2(torch.fft.rfft2(w) * _inverse_laplacian_symbol(size, w.device), s=(size, size))


def _speed(psi_x: Tensor, psi_y: Tensor) -> Tensor:
    """max(|v_x| + |v_y|) [B] from -12h times the derivatives of ψ."""
    return (psi_x.detach().abs() + psi_y.detach().abs()).flatten(1).amax(1) * (psi_x.shape[-1] / 12)


def maximum_speed(w: Tensor) -> Tensor:
    """max(|v_x| + |v_y|) [B] of the flow with vorticity w [B, S, S]."""
    psi = stream_function(w)
    return _speed(difference(psi, -2), difference(psi, -1))


def benchmark_forcing(size: int, amplitude: float) -> Tensor:
    """f = amplitude (sin 2π(x+y) + cos 2π(x+y)) on S x S nodes, float64."""
    x = torch.arange(size, dtype=torch.float64) / size
    phase = 2 * torch.pi * (x[:, None] + x[None, :])
    return amplitude * (torch.sin(phase) + torch.cos(phase))


@dataclass
class Stepper:
    """Steps of length dt of the transformed vorticity [B, S, S//2 + 1]; `forcing` f [S, S] sets the grid and the device."""

    forcing: Tensor
    viscosity: float
    dt: float

    def __post_init__(self) -> None:
        self.size, device = self.forcing.shape[-1], self.forcing.device
        self.inverse_laplacian = _inverse_laplacian_symbol(self.size, device)
        self.half = torch.exp(self.viscosity * self.dt / 2 * laplacian_symbol(self.size, device))
        self.whole = self.half**2
        self.forcing_term = self.dt * torch.fft.rfft2(self.forcing)

    def _rate(self, w_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dt (f - J) transformed, and -12h times the derivatives of ψ."""
        both = torch.stack([w_hat * self.inverse_laplacian, w_hat])
        both = torch.fft.irfft2(both, s=(self.size, self.size))
        (psi, w), (psi_x, w_x), (psi_y, w_y) = both, difference(both, -2), difference(both, -1)
        advection = torch.fft.rfft2(_advection(psi, w, (psi_x, psi_y, w_x, w_y)))
        return torch.sub(self.forcing_term, advection, alpha=self.dt * self.size**2 / 432), psi_x, psi_y

    def step(self, w_hat: Tensor) -> tuple[Tensor, Tensor]:
        """The vorticity one step later, and the maximum speed [B] at its start."""
        first, psi_x, psi_y = self._rate(w_hat)
        half = self.half * w_hat
        second = self._rate(torch.addcmul(half, self.half, first, value=0.5))[0]
        third = self._rate(half + 0.5 * second)[0]
        fourth = self._rate(self.half * (half + third))[0]
        middle = torch.addcmul(fourth / 6, self.half, second + third, value=1 / 3)
        return torch.addcmul(middle, self.whole, w_hat + first / 6), _speed(psi_x, psi_y)

    def advance(self, w: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """w [B, S, S] after `steps` steps, and the maximum speed [B] on the way.

        For gradients the state at each step is kept and the rest computed again, so memory grows by S² numbers a step.
        """
        w_hat, fastest = torch.fft.rfft2(w), torch.zeros(len(w), dtype=w.dtype, device=w.device)
        keep = torch.is_grad_enabled() and w.requires_grad
        for _ in range(steps):
            if keep:
                w_hat, speed = torch.utils.checkpoint.checkpoint(self.step, w_hat, use_reentrant=False, preserve_rng_state=False)
            else:
                w_hat, speed = self.step(w_hat)
            fastest = torch.maximum(fastest, speed)
        return torch.fft.irfft2(w_hat, s=(self.size, self.size)), fastest


def allowed_steps(least: float) -> int:
    """The first of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is at least `least`: few values, so that fields share a batch."""
    power = 2 ** max(0, math.ceil(math.log2(max(least, 1.0))))
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= least else power


def chunk_size(size: int, device: torch.device) -> int:
    """Fields marched together, two at least: on a CPU so few that the working set stays in the cache."""
    return max(2, (1 << 15 if device.type == "cpu" else 1 << 24) // size**2)


class NavierStokesParameters(RandomFieldParameters):
    """Parameters of the flow, of its initial field and of the solver.

    viscosity    ν ≥ 0
    time         T > 0, the time of the solution
    forcing      A of f = A (sin 2π(x+y) + cos 2π(x+y))
    alpha, tau   smoothness and inverse length scale of the initial vorticity's random field
    refinement   the grid that is solved on has `refinement` times as many nodes per axis as the one that is stored
    step         time step; none (the default): from the stability rule, for each field
    """

    viscosity: float = Field(1e-3, ge=0)
    time: float = Field(1.0, gt=0)
    forcing: float = 0.1
    alpha: float = Field(2.5, gt=1)
    tau: float = Field(7.0, gt=0)
    refinement: int = Field(1, ge=1, le=8)
    step: float | None = Field(None, gt=0)


class NavierStokes(Problem):
    """∂w/∂t + v·∇w = ν ∇²w + f, periodic on the unit square; the coefficient is w(0), the solution w(T).

    Grid: S x S nodes, x = i/S, y = j/S, h = 1/S; neither axis repeats its first node. Everything is dimensionless.
    Solver: energy and enstrophy conserving differences of fourth order, exact viscosity, Runge-Kutta 4 (module docstring).

    Time step: each field has its own number of equal steps, the least of 1, 2, 3, 4, 6, 8, 12, ... for which the Courant number
    dt (max(|v_x| + |v_y|) + T max(|f_x| + |f_y|)) / h is at most 1.4 (stable up to 2.06), with f_x, f_y the velocities that the
    forcing drives in unit time, and dt 8π² ν at most 1/2 where there is forcing. Fields of equal number march together, so what
    else is in the batch changes nothing. The speed is watched on the way: a field that exceeds the stable number after all is
    marched again with twice as many steps.

    Refinement r interpolates w(0) to r S nodes per axis by its Fourier series and keeps every r-th node of w(T).

    Fails: a field that is not finite, or that needs more than 10,000 steps, has NaN for its solution (the others of the batch are
    not touched). A `step` of the user's that is unstable raises InputError with the largest that is not.

    Good values: ν = 1e-3, T = 1, A = 0.1 (benchmark) without refinement: relative l2 error 2e-4 at S = 64, 1e-5 at S = 128, in 6
    and 12 steps. For ν = 1e-4 or T = 10 the solution has finer structures: compare refinement 1 and 2 first.

    The initial fields of one index at different resolutions are the same field, cut off at the grid's highest frequency.
    """

    Parameters = NavierStokesParameters
    equation = "∂w/∂t + v·∇w = ν ∇²w + f in [0, 1)², ∇²ψ = w, v = (-∂ψ/∂y, ∂ψ/∂x), a = w(0), u = w(T)"
    boundary = "periodic"
    solver = "energy and enstrophy conserving differences of fourth order, exact viscosity, Runge-Kutta 4"
    distribution = "a Gaussian, Fourier modes of variance 2 S² τ^(2α-2) (4π²|k|² + τ²)^(-α), no mean"
    coefficient_label = "w(0)"
    solution_label = "w(T)"
    basis = "fourier"
    local_residual = False
    minimum_resolution = 8

    parameters: NavierStokesParameters

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return sample_periodic(indices, resolution, seed, self.parameters.alpha, self.parameters.tau)

    def prior_spectrum(self, resolution: int) -> Tensor:
        return torch.from_numpy(periodic_spectrum(resolution, self.parameters.alpha, self.parameters.tau))

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        """Of pairs none: the forcing has a place, and a reflection changes the sign of the vorticity."""
        return frozenset() if pairs else SQUARE | {"shifts"}

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        """u - Φ(a) [..., S, S] with Φ this solver: the equation holds along a path of which only the ends are stored, so
        nothing short of marching it again can tell whether it does. 0 for pairs of this solver with these parameters; for
        those of another solver, the difference of the two."""
        return solution - self.solve(coefficient).to(solution.dtype)

    def solve(self, coefficient: Tensor) -> Tensor:
        """w(T) [..., S, S]. Gradients: the state of every step is kept, 8 S² bytes each (times refinement squared)."""
        size, refinement = coefficient.shape[-1], self.parameters.refinement
        self.check(size)
        w = coefficient.reshape(-1, size, size).double()
        if refinement > 1:
            matrix = torch.from_numpy(interpolation_matrix(size, refinement * size)).to(w.device)
            w = matrix @ w @ matrix.T
        w = self._march(w)[:, ::refinement, ::refinement]
        return w.reshape(coefficient.shape).to(coefficient.dtype)

    def _march(self, w: Tensor) -> Tensor:
        """w(T) [B, R, R] on the grid that is solved on; fields with equal numbers of steps together."""
        forcing = benchmark_forcing(w.shape[-1], self.parameters.forcing).to(w.device)
        steps = self.steps(w.detach())
        done: dict[int, Tensor] = {}
        waiting = [(count, [i for i, own in enumerate(steps) if own == count]) for count in sorted(set(steps)) if count]
        while waiting:
            count, fields = waiting.pop()
            stepper = Stepper(forcing, self.parameters.viscosity, self.parameters.time / count)
            unstable: list[int] = []
            width = chunk_size(w.shape[-1], w.device)
            for part in (fields[i : i + width] for i in range(0, len(fields), width)):
                # The FFT library rounds a lone transform differently from those of a batch.
                end, speed = stepper.advance(w[part if len(part) > 1 else part * 2], count)
                courant = (speed * stepper.dt * w.shape[-1]).tolist()
                for row, field in enumerate(part):
                    if courant[row] <= STABLE_COURANT:
                        done[field] = end[row : row + 1]
                    else:
                        unstable.append(field)
            if unstable and self.parameters.step is not None:
                raise self._unstable(count)
            if unstable and 2 * count <= MAXIMUM_STEPS:
                waiting.append((2 * count, unstable))
        return torch.cat([done[i] if i in done else w[i : i + 1] * math.nan for i in range(len(w))])

    def steps(self, w: Tensor) -> list[int]:
        """Number of time steps of each field w [B, R, R]; 0 for a field that cannot be solved. InputError: unstable `step`."""
        p, size = self.parameters, w.shape[-1]
        driven = p.time * maximum_speed(benchmark_forcing(size, p.forcing)[None]).item()
        chunks = w.split(chunk_size(size, w.device))
        per_unit = p.time * size * (torch.cat([maximum_speed(part) for part in chunks]).cpu() + driven)
        if p.step is not None:
            count = max(1, math.ceil(p.time / p.step - 1e-9))
            if bool((per_unit / count > STABLE_COURANT).any()):
                raise self._unstable(count, float(per_unit.max()))
            return [count if math.isfinite(value) else 0 for value in per_unit.tolist()]
        forced = 16 * math.pi**2 * p.viscosity * p.time if p.forcing else 1.0
        least = (max(value / COURANT, forced) for value in per_unit.tolist())
        return [allowed_steps(value) if value <= MAXIMUM_STEPS else 0 for value in least]

    def _unstable(self, count: int, per_unit: float | None = None) -> InputError:
        p = self.parameters
        accepted = "a smaller one" if per_unit is None else f"up to {p.time * COURANT / per_unit:.3g}"
        return InputError(
            f"parameter step {p.step:g}: unstable, the Courant number of {count} steps exceeds {STABLE_COURANT}; "
            f"accepted: {accepted}, or none for a step from the stability rule"
        )
