"""The posterior of a coefficient that is a map of a Gaussian field, as a density of white coefficients.

    a = A(g),   g = Qᵀ C^(1/2) z,   z ~ N(0, I),   p(z | y) ∝ exp(-Φ(z) - |z|²/2)

with Q the basis of the coefficient's grid and C the variances of the modes, the largest first. Φ is what the data say:

    gaussian        Φ = Σ_j (y_j - M_j G(a))² / 2 R_jj, independent errors of variance R
    mean-absolute   Φ = (mean_j |y_j - M_j G(a)|)² / 2 σ², the kernel of PosteriorBench (arXiv 2609.20794), σ² the mean of R
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ddis.errors import InputError
from ddis.observe.base import Functionals
from ddis.observe.likelihood import Likelihood, negative_log, worth
from ddis.operators.solver import solved
from ddis.pde.base import Problem

LINEAR = 256  # modes of the coefficient that are its features


@dataclass(frozen=True)
class Latent:
    """The posteriors of n fields of one problem, in physical units.

    functionals: all that might be observed; index [n, m]: which of them each field shows; values, variance [n, m].
    Raises InputError for a problem whose coefficient is no known map of a Gaussian field.
    """

    problem: Problem
    functionals: Functionals
    index: Tensor
    values: Tensor
    variance: Tensor
    likelihood: Likelihood = "gaussian"

    def __post_init__(self) -> None:
        if self.problem.latent_spectrum(self.resolution) is None:
            raise InputError(f"{type(self.problem).__name__}: its coefficient is no known map of a Gaussian field")

    @property
    def resolution(self) -> int:
        assert self.problem.resolution is not None
        return self.problem.resolution

    @cached_property
    def spectrum(self) -> Tensor:
        """C [*shape]."""
        spectrum = self.problem.latent_spectrum(self.resolution)
        assert spectrum is not None
        return spectrum

    @cached_property
    def modes(self) -> Tensor:
        """Places [P] of the modes that vary, the largest variance first."""
        flat = self.spectrum.flatten()
        order = flat.argsort(descending=True, stable=True)
        return order[flat[order] > 0]

    @property
    def even(self) -> bool:
        """Whether z and -z explain the observations equally, with coefficients a and -a."""
        return self.problem.even and not self.functionals.seen[1]

    @property
    def error_variance(self) -> Tensor:
        """Of independent Gaussian errors [n, m] that say about as much."""
        return self.variance * worth(self.likelihood, self.variance.shape[1])

    def coefficient(self, z: Tensor) -> Tensor:
        """A(g) [..., *shape] of white coefficients [..., P]."""
        basis, (rank, scale) = self.problem.coefficient_space(self.resolution).grid.basis, self._places
        coefficients = z.reshape(-1, z.shape[-1]).index_select(1, rank) * scale.to(z)  # a fifth of the time of z[..., rank]
        return self.problem.from_latent(basis.inverse(coefficients.reshape(*z.shape[:-1], *self.spectrum.shape)))

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Of every mode, where it is in z (0 for one that does not vary) and its standard deviation."""
        rank = torch.zeros(self.spectrum.numel(), dtype=torch.long)
        rank[self.modes] = torch.arange(len(self.modes))
        return rank, self.spectrum.flatten().sqrt()

    @cached_property
    def leading(self) -> tuple[Tensor, Tensor]:
        """Places of the K modes of the longest waves in all channels of the coefficient, and (1 + |k|²)^(-½) of each."""
        space = self.problem.coefficient_space(self.resolution)
        squares = torch.from_numpy(space.grid.basis.half_periods_squared).flatten().repeat(space.channels)
        places = squares.argsort(stable=True)[:LINEAR]
        return places, (1 + squares[places]).rsqrt()

    def features(self, coefficient: Tensor) -> Tensor:
        """Leading modes [..., K] of relaxed coefficients [..., *shape]."""
        space = self.problem.coefficient_space(self.resolution)
        modes: Tensor = space.grid.basis.forward(self.problem.relax(coefficient))
        return modes.flatten(coefficient.ndim - len(space.shape))[..., self.leading[0]]

    def predict(self, z: Tensor) -> Tensor:
        """M G(A(g)) [n, K, m] of z [n, K, P]; NaN for a coefficient that the problem refuses."""
        n, chains = z.shape[:2]
        index = self.index.repeat_interleave(chains, dim=0)
        return measured(self.problem, self.functionals, index, self.coefficient(z.flatten(0, 1))).reshape(n, chains, -1)

    def misfit(self, predicted: Tensor) -> Tensor:
        """Φ [n, K] of predictions [n, K, m]; infinite where one is not finite."""
        phi = negative_log(self.likelihood, predicted - self.values[:, None], self.variance[:, None])
        return phi.nan_to_num(nan=torch.inf)


def measured(problem: Problem, functionals: Functionals, index: Tensor, a: Tensor) -> Tensor:
    """M G(a) [B, m] of coefficients [B, *shape], for functionals index [B, m]."""
    solution, coefficient = functionals.seen
    return functionals(functionals.stack(solved(problem, a) if solution else None, a if coefficient else None), index)
