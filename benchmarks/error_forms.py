"""Forms of the covariance R of an operator's errors, from held-out pairs, and how well each describes fresh errors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from stressed_operators import SCORED, Stress, Tested
from torch import Tensor

from ddis.fields.bases import Basis
from ddis.models.denoiser import SIGMA_DATA
from ddis.observe.base import node_functions
from ddis.observe.observation import Observation
from ddis.operators.error import error_growth, operator_error_model, rings
from ddis.randomness import generator

CHOSEN = "per wavenumber, growing, with gains"
SHRINKAGE = 300  # pairs that the rings are worth in the full covariance
Covariance = Callable[[Tensor, Tensor], Tensor]  # nodes [n, m], normalised values [n, m] -> R [n, m, m]


@dataclass(frozen=True)
class StatedError:
    """An operator's error of which R [n, m, m] as a whole is given."""

    gain: Tensor | None
    whole: Covariance

    def counted(self, model: str) -> "StatedError":
        return self

    def covariance(self, observation: Observation) -> Tensor:
        return self.whole(observation.index, observation.values) - torch.diag_embed(observation.variance)


def error_covariance(
    index: Tensor, variance: float, modes: Basis, spectrum: Tensor | None = None, growth: Tensor | None = None
) -> Tensor:
    """R [n, m, m] at the nodes index [n, m]: white noise, and an error field of independent modes, times growth [n]."""
    white = variance * torch.eye(index.shape[1], dtype=torch.float64).expand(*index.shape, -1)
    if spectrum is None:
        return white
    functions = node_functions(modes, index).flatten(2)
    error = (functions * spectrum.flatten()) @ functions.mT
    return white + (error if growth is None else growth[:, None, None] * error)


def forms(stress: Stress, tested: Tested) -> dict[str, tuple[Tensor | None, Covariance]]:
    """Forms of R, each from the held-out pairs of the operator, with the gains [S, S] of the operator's modes or without."""
    assert tested.trained.solution is not None
    floor = stress.variance * (SIGMA_DATA / tested.trained.solution.std) ** 2
    errors, modes = tested.errors.double(), stress.basis
    shared = ring_variance(errors, modes)
    growing = ring_variance(errors / error_growth(tested.solutions.flatten(1)).sqrt()[:, None, None], modes)
    functions = node_functions(modes, torch.arange(stress.size**2)[None]).flatten(2)[0]
    flat = errors.flatten(1)
    full = (flat.T @ flat + SHRINKAGE * (functions * shared.flatten()) @ functions.T) / (len(flat) + SHRINKAGE)

    def grown(spectrum: Tensor | None) -> Covariance:
        return lambda index, values: error_covariance(index, floor, modes, spectrum, error_growth(values))

    def of_nodes(index: Tensor, values: Tensor) -> Tensor:
        return torch.diag_embed((errors**2).mean(dim=0).flatten()[index] + floor)

    def of_pairs(index: Tensor, values: Tensor) -> Tensor:
        return full[index[:, :, None], index[:, None, :]] + floor * torch.eye(index.shape[1], dtype=torch.float64)

    return {
        "one variance": (None, lambda index, values: error_covariance(index, floor + float((errors**2).mean()), modes)),
        "per node": (None, of_nodes),
        "per wavenumber": (None, lambda index, values: error_covariance(index, floor, modes, shared)),
        "per wavenumber, growing": (None, grown(growing)),
        CHOSEN: (tested.trained.error_gain, grown(tested.trained.error_spectrum)),
        "full": (None, of_pairs),
    }


def score(stress: Stress, tested: Tested, gain: Tensor | None, covariance: Covariance, fields: int = SCORED) -> dict[str, float]:
    """How well R describes the operator's errors on fresh fields: negative log-likelihood and chi-square per observation."""
    errors, truth = stress.predictions(tested.trained, stress.coefficient[:fields], stress.solution[:fields])
    if gain is not None:
        errors = stress.basis.inverse(gain * stress.basis.forward((truth + errors).double())) - truth
    index = torch.from_numpy(stress.index[:fields])
    seen, values = (f.flatten(1).double().gather(1, index) for f in (errors, truth))
    root = torch.linalg.cholesky(covariance(index, values))
    chi = torch.linalg.solve_triangular(root, seen[..., None], upper=False)[..., 0].square().mean(dim=1)
    likelihood = 0.5 * chi + root.diagonal(dim1=1, dim2=2).log().mean(dim=1)
    low, high = chi.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64)).tolist()
    return {"likelihood": float(likelihood.mean()), "chi": float(chi.mean()), "chi_low": low, "chi_high": high}


def subsets(stress: Stress, tested: Tested, pairs: int, draws: int = 20, fields: int = 100) -> dict[str, float]:
    """R from a few of the held-out pairs: mean score over random choices of them."""
    rng = generator(stress.study.seed, "subsets", pairs)
    scores = []
    for _ in range(draws):
        rows = torch.from_numpy(rng.choice(len(tested.errors), pairs, replace=False))
        errors, solutions = tested.errors[rows], tested.solutions[rows]
        gain, spectrum = operator_error_model(solutions + errors, solutions, stress.basis)
        trained = replace(tested.trained, error_gain=gain, error_spectrum=spectrum)
        part = replace(tested, trained=trained, errors=errors, solutions=solutions)
        scores.append(score(stress, part, *forms(stress, part)[CHOSEN], fields))
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}


def ring_variance(errors: Tensor, modes: Basis) -> Tensor:
    """Variance [S, S] of the modes of error fields [N, S, S], shared by rings of equal |k|."""
    power = (modes.forward(errors) ** 2).mean(dim=0)
    ring, number = rings(modes)
    return (torch.zeros_like(number).index_add_(0, ring, power.flatten()) / number)[ring].reshape(power.shape)
