"""The error of interpolation: what sensors between nodes miss, estimated on fields like those of the problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddis.observe import Sensors
from ddis.operators.error import OperatorError
from ddis.randomness import generator, white_noise

if TYPE_CHECKING:
    from ddis.posterior import Posterior

INTERPOLATION_DRAWS = 32


def functionals_error(posterior: Posterior, error: OperatorError | None) -> Tensor | None:
    """Variance [P] of what the sensors' functionals miss on fields like those of the problem, normalised; None: nothing."""
    found, drawn = [], None
    for part in posterior.placed.sensors.parts:
        grid = posterior.placed.grid(part)
        count = len(part.functionals(grid).index)
        if type(part).own_error is Sensors.own_error:
            found.append(torch.zeros(count, dtype=torch.float64))
            continue
        if drawn is None:
            drawn = typical_fields(posterior, error)
        own = part.own_error(grid, posterior.placed.space(part).channelled(drawn[part.of])[:, part.channel])
        found.append(torch.zeros(count, dtype=torch.float64) if own is None else own)
    return None if drawn is None else torch.cat(found).to(posterior.device)


def typical_fields(posterior: Posterior, error: OperatorError | None) -> dict[str, Tensor]:
    """Normalised coefficients and solutions [N, *shape] like those of the problem, float64, on the CPU."""
    problem, prior = posterior.problem, posterior.prior
    if not bool(prior.spectrum.any()):
        a = problem.sample_coefficients(range(INTERPOLATION_DRAWS), posterior.resolution, posterior.seed)
        u = problem.solve(a) if prior.examples is None else prior.examples
        return {"coefficient": posterior.coefficient.normalise(a).double(), "solution": posterior.solution.normalise(u).double()}
    generators = [generator(posterior.seed, "interpolation", number) for number in range(INTERPOLATION_DRAWS)]
    white = torch.from_numpy(white_noise(posterior.spaces[0].shape, generators)).double()
    draws = (prior.mean + posterior.bases[0].inverse(prior.spectrum.cpu().sqrt() * white)).float().to(posterior.device)
    with torch.no_grad():
        a, u = posterior.coefficient.normalise(posterior.physical(draws)), posterior.predict(draws, error)
    return {"coefficient": a.double().cpu(), "solution": u.double().cpu()}
