"""`ddis-gn`: DAPS on the coefficient prior with the spectral Gauss-Newton step; exact for Gaussian priors and linear problems.

Where DDIS takes p(x0 | x_t) as isotropic and follows it with Langevin steps on a hundred levels, this draws from it in closed
form, with the prior's own spectrum and an observation covariance that holds the operator's error: ten levels suffice. The
chain starts from a sample of N(μ, C) given y, the level σ = ∞, as noise of σ_max alone need not hide the largest modes: on
128 x 128 nodes the published kernel gives the first cosine a quarter of the variance that the coefficient has there.

Where the prior is not Gaussian, draws are approximate; Metropolis moves bring them nearer: at each level for linear problems
(`ddis.sampling.metropolis`), at the end for any (`ddis.sampling.renoise`).

Constrained coefficients a = P(b) (helmholtz: zero on the boundary, of covariance P C P, which is not diagonal in the basis): the
chain lives on the free field b, with the operator G P and the spectrum of b, and its last state is constrained. For linear P and
G that is exact, given the denoiser of b. A trained denoiser knows b through `Problem.relax` only: for helmholtz, boundary nodes
that repeat their neighbours. G never looks there, so what is approximate is that the spectrum of relaxed fields is taken as
diagonal, as for any empirical spectrum: at 32 x 32 with 125 observations the mean's error is 0.1 % above the limit, the spread
4 % too small. With the spectrum of the constrained fields themselves, whose jump at the boundary spreads over all modes, it would
be 28 % above, the spread 2.3 times too large (tests/test_truth.py).
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from ddis.errors import InputError
from ddis.pde.base import Problem
from ddis.sampling.base import Batch, ErrorChoice, Evaluations, Method, Positive, RunSettings, Size, State
from ddis.sampling.corrected import CorrectedStep, calls_per_level, correction_cost
from ddis.sampling.covariance import AverageSpectrum, Covariance, RingCovariance, suited
from ddis.sampling.daps import anneal
from ddis.sampling.gauss_newton import (
    DenseUpdate,
    GaussNewtonStep,
    Prepared,
    SharedJacobian,
    gauss_newton_cost,
    make_update,
)
from ddis.sampling.matrix_free import LEADING_MODES, LeadingModes, MatrixFreeUpdate
from ddis.sampling.metropolis import MetropolisStep
from ddis.sampling.renoise import evaluations_from, renoise
from ddis.sampling.schedules import karras_schedule

_log = logging.getLogger(__name__)


class DDISGNSettings(RunSettings):
    """steps, sigma_max, sigma_min: annealing; ode_steps: 1 is the posterior mean, exact for a Gaussian prior.

    solver       dense: the Jacobian at x = 0 for all chains (linear problems); matrix-free: each chain's own, through products;
                 null: the cheaper one for linear problems (see `dense_is_cheaper`), else matrix-free
    iterations   Gauss-Newton iterations per level
    tolerance    of the matrix-free solver, and of calls of the solver, in standard deviations of R
    covariance   of x0 given x_t: spectrum, one for all fields, which is right for a Gaussian prior only; denoiser, each chain's
                 own, from `probes` products with the denoiser's Jacobian per level; auto: what suits the prior
                 (`ddis.sampling.covariance.suited`), and the log says why
    error_model  the operator's own error in R: spectral (modes in rings of |k|), white, or none
    solver_calls calls of the solver per sample, on the second half of the levels, where it corrects the operator
    moves        Metropolis moves at each level down to moves_above (`ddis.sampling.metropolis`), for linear problems and a prior
                 that is not Gaussian; each costs as many evaluations as the level itself
    renoise      moves of the samples by noise and reverse diffusion (`ddis.sampling.renoise`), at renoise_levels by turns; for
                 any problem and prior; from a level of 1 a move costs 23 evaluations of the prior, and one of the operator
    """

    steps: int = Field(10, ge=1)
    sigma_max: float = Field(10.0, gt=0)
    sigma_min: float = Field(0.01, gt=0)
    ode_steps: int = Field(1, ge=1)
    solver: Literal["dense", "matrix-free"] | None = None
    iterations: int = Field(1, ge=1)
    tolerance: float = Field(0.3, gt=0)
    covariance: Literal["auto", "spectrum", "denoiser"] = "auto"
    probes: int = Field(2, ge=1)
    error_model: ErrorChoice = "spectral"
    solver_calls: int = Field(12, ge=0)
    moves: int = Field(0, ge=0)
    moves_above: float = Field(0.03, gt=0)
    renoise: int = Field(0, ge=0)
    renoise_levels: tuple[Positive, ...] = Field((0.3, 0.7, 1.0), min_length=1)

    @property
    def levels(self) -> np.ndarray:
        """Noise levels of the annealing, [steps + 1], the last of them 0."""
        return karras_schedule(self.sigma_max, self.sigma_min, self.steps)

    @property
    def moves_per_chain(self) -> int:
        """Moves of one chain over all levels."""
        return self.moves * int((self.levels >= self.moves_above).sum())

    @property
    def renoise_evaluations(self) -> int:
        """Of the denoiser, for the moves at the end of one chain."""
        return sum(evaluations_from(self.renoise_levels[move % len(self.renoise_levels)]) for move in range(self.renoise))


def dense_is_cheaper(settings: DDISGNSettings, m: int) -> bool:
    """Whether m vector-Jacobian products for the field's K samples cost less than products at every level.

    The cost model, in evaluations per sample of N levels, that at σ = ∞ included: dense 2 m / K + N; matrix-free
    3 r / K + (4 + 2 c) N, with r leading modes and c iterations per level, about 2 with the preconditioner. It does not ask how
    many fields share the rows, so that a field's samples do not depend on what else is drawn.
    """
    k, levels = settings.samples, (settings.steps + 1) * settings.iterations
    return 2 * m / k + levels <= 3 * LEADING_MODES / k + 8 * levels


class DDISGN(Method[DDISGNSettings]):
    Settings = DDISGNSettings
    prior = "coefficient"
    uses_operator = True
    uses_excess = True
    corrects = True
    weighable = True

    @property
    def error_model(self) -> ErrorChoice:
        return self.settings.error_model

    def dense(self, linear: bool, observed: int) -> bool:
        """Whether the Jacobian is that at x = 0 for all chains, for `observed` values per field."""
        s = self.settings
        return s.solver == "dense" or (s.solver is None and linear and (s.moves > 0 or dense_is_cheaper(s, observed)))

    def check(self, problem: Problem, resolution: int) -> None:
        s = self.settings
        if s.renoise and s.operator == "corrected":
            raise InputError(f"renoise: {s.renoise} with a corrected operator; accepted: renoise: 0, or another operator")
        refused = {
            "a problem that is not linear": not problem.linear,
            "solver: matrix-free": s.solver == "matrix-free",
            "operator: corrected": s.operator == "corrected",
            "covariance: spectrum": s.covariance == "spectrum",
            f"iterations: {s.iterations}": s.iterations > 1,
            f"ode_steps: {s.ode_steps}": s.ode_steps > 1,
            f"moves_above: {s.moves_above:g} and sigma_max: {s.sigma_max:g}": s.moves_above >= s.sigma_max,
        }
        found = [name for name, wrong in refused.items() if wrong]
        if s.moves and found:
            raise InputError(f"moves: {s.moves} with {', '.join(found)}; accepted: moves: 0, or another setting there")

    def cost(self, size: Size) -> Evaluations:
        s = self.settings
        levels = (s.steps + 1) * s.iterations
        own = s.covariance == "denoiser" or (s.covariance == "auto" and not size.gaussian)
        dense, calls = self.dense(size.linear, size.observed), s.solver_calls * (s.operator == "corrected")
        cost, moves = gauss_newton_cost(size, levels, dense, s), s.moves_per_chain * own
        rings = math.isqrt(2 * size.nodes) if moves else 0
        return replace(
            cost,
            prior=(s.steps + moves) * (2 * s.ode_steps - 1 + ((s.ode_steps > 1) + 2 * s.probes) * own) + s.renoise_evaluations,
            operator=cost.operator + moves + correction_cost(calls, s.steps + 1, dense) + (s.renoise + 1) * (s.renoise > 0),
            solver=calls,
            memory=cost.memory + 8 * rings * size.observed**2 * s.fields_per_batch,
        )

    def asks_denoiser(self, batch: Batch) -> bool:
        """Whether Σ is each chain's own, from the denoiser."""
        chosen = self.settings.covariance
        return (suited(batch)[0] if chosen == "auto" else chosen) == "denoiser"

    def prepare(self, batch: Batch) -> Prepared:
        if self.settings.covariance == "auto":
            _log.info("covariance of x0 given x_t: %s, as %s", *suited(batch))
        for name, moves in (("moves", self.settings.moves), ("renoise", self.settings.renoise)):
            if moves and batch.solver is not None:
                raise InputError(f"{name}: {moves} with a corrected operator; accepted: {name}: 0, or another operator")
        if self.settings.moves and not self.asks_denoiser(batch):
            _log.warning("no Metropolis moves are made: %s; covariance: denoiser makes them", suited(batch)[1])
        dense = self.dense(batch.problem.linear, batch.observation.index.shape[1])
        return SharedJacobian(batch) if dense else LeadingModes(batch)

    def sample(self, batch: Batch, prepared: Prepared) -> Iterator[State]:
        s = self.settings
        covariance = RingCovariance(batch, s.probes) if self.asks_denoiser(batch) else AverageSpectrum(batch)
        update = make_update(batch, prepared, s.tolerance)
        inner = batch
        if isinstance(covariance, RingCovariance) and s.ode_steps == 1:  # one evaluation serves mean and covariance
            inner = replace(batch, prior=covariance.denoise)
        likelihood = self.step(inner, update, covariance)
        mean = batch.prior_mean.float().expand(len(batch.generators), *batch.shape)
        channelled = batch.spaces[0].channelled
        start = channelled(likelihood(mean, channelled(mean), math.inf, 0.0))
        x0, step, steps = batch.free(start), s.steps, s.steps + s.renoise_evaluations  # a step is an evaluation
        for state in anneal(inner, likelihood, s.levels, s.ode_steps, x0=start):
            x0 = state.x0
            yield replace(state, steps=steps)
        if isinstance(likelihood, MetropolisStep):
            told = ", ".join(f"{100 * share:.0f} % at σ = {sigma:.2g}" for sigma, share in likelihood.accepted.items())
            _log.debug("Metropolis moves accepted: %s", told)
        if s.renoise:
            for sigma, moved in renoise(batch, x0, s.renoise, s.renoise_levels):
                step += evaluations_from(sigma)
                yield State(step, steps, sigma, moved)

    def step(self, batch: Batch, update: DenseUpdate | MatrixFreeUpdate, covariance: Covariance) -> GaussNewtonStep:
        """The draw of x0 given x_t and the values."""
        s = self.settings
        if batch.solver is not None:
            calls = calls_per_level(s.solver_calls, s.steps + 1)
            return CorrectedStep(batch, update, covariance, s.iterations, s.tolerance, calls)
        if s.moves and isinstance(update, DenseUpdate) and isinstance(covariance, RingCovariance):
            return MetropolisStep(batch, update, covariance, s.moves, s.moves_above)
        return GaussNewtonStep(batch, update, covariance, s.iterations)
