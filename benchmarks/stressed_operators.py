"""Operators with relative errors of about 1 to 100 %, made from those of a finished study, and fields that it has not seen."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddis.config import Study
from ddis.fields.bases import basis
from ddis.grid import square
from ddis.models.ids import ModelId
from ddis.observe.nodes import draw_nodes
from ddis.observe.simulated import Simulated
from ddis.operators.error import operator_error_model
from ddis.posterior import NOISELESS_VARIANCE
from ddis.randomness import generator
from ddis.stages.common import load_pairs, validation_share
from ddis.stages.train import operator_job
from ddis.trained import Trained, load_network
from ddis.training.distributed import Ranks

CPU = torch.device("cpu")
FIELDS, FRESH, SCORED = 32, 1, 500  # fields sampled; offset of the seed; fields on which errors of operators are measured
NOISE_TARGETS = (0.03, 0.1, 0.3, 1.0)


@dataclass
class Tested:
    """An operator, from what it was made, and its errors [N, S, S] and solutions [N, S, S], normalised, on its held-out pairs.

    percent: whose settings apply; error: relative, on fresh fields.
    """

    name: str
    percent: str
    trained: Trained
    errors: Tensor
    solutions: Tensor
    error: float = 0.0


class Stress:
    """A finished study, and fields that it has not seen."""

    def __init__(self, study: Study):
        self.study, self.name = study, next(iter(study.problems))
        self.problem, self.size = study.make_problem(self.name), study.data.resolution
        self.basis = basis(self.problem.basis, self.size)
        self.observation = next(iter(study.observations))
        self.coefficient = self.problem.sample_coefficients(range(SCORED), self.size, study.seed + FRESH).float()
        self.solution = self.problem.solve(self.coefficient)
        grid, count = square(self.size, self.problem.basis == "fourier"), study.observed(self.name, self.observation)
        self.index = np.stack([draw_nodes(grid, count, study.seed + FRESH, f) for f in range(SCORED)])
        self.scale = float(load_pairs(study, self.name, "train").solution.std(dtype=np.float64))
        self.variance = NOISELESS_VARIANCE * self.scale**2

    def observed(self) -> Simulated:
        """The first of the fields, at nodes drawn anew, without noise."""
        part, placed = slice(FIELDS), self.study.placed(self.name, self.observation)
        coefficient, solution, index = self.coefficient[part].numpy(), self.solution[part].numpy(), self.index[part]
        values = np.take_along_axis(solution.reshape(FIELDS, -1), index, axis=1)
        unit, variance = (np.full(index.shape[1], value) for value in (self.scale, self.variance))
        return Simulated(coefficient, solution, placed, index, values, unit, variance, np.zeros_like(unit), self.scale)

    @torch.no_grad()
    def predictions(self, operator: Trained, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Errors and solutions [N, S, S], normalised, of physical pairs."""
        assert operator.solution is not None
        made = torch.cat([operator.network(part) for part in a.split(64)])
        return operator.solution.normalise(made) - operator.solution.normalise(u), operator.solution.normalise(u)

    def tested(self, name: str, percent: str, share: str, operator: Trained) -> Tested:
        """The operator with R from the held-out pairs of the percent `share`."""
        pairs, rows = load_pairs(self.study, self.name, "validation"), validation_share(self.study, share)
        errors, solutions = self.predictions(operator, *(torch.from_numpy(f[rows]) for f in (pairs.coefficient, pairs.solution)))
        gain, spectrum = operator_error_model(solutions + errors, solutions, self.basis)
        fresh, truth = self.predictions(operator, self.coefficient, self.solution)
        error = float((fresh.flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())
        return Tested(name, percent, replace(operator, error_gain=gain, error_spectrum=spectrum), errors, solutions, error)

    def operators(self) -> Iterator[Tested]:
        """All operators, the smallest error first."""
        few, most = sorted(self.study.percents("ddis-gn"), key=float)[0], "100"
        whole, little = (load_network(self.study, self.name, f"operator-{percent}", CPU) for percent in (most, few))
        whole_error = self.tested("", most, most, whole).error
        mixed = Mixture(self.problem.solve, whole.network, 0.01 / whole_error)
        made = [
            self.tested("mixed with the solver", most, most, replace(whole, network=mixed)),
            self.tested(f"trained on {most} % of the pairs", most, most, whole),
            self.tested(f"trained on {few} % of the pairs", few, few, little),
            self.tested(
                f"trained on {float(few) / 5:g} % of the pairs", few, f"{float(few) / 5:g}", self.trained(f"{float(few) / 5:g}")
            ),
            *(self.tested("noise on the weights", most, most, self.disturbed(whole, target)) for target in NOISE_TARGETS),
        ]
        yield from sorted(made, key=lambda tested: tested.error)

    def trained(self, percent: str) -> Trained:
        """An operator trained on a share that the study does not have, in 300 steps."""
        content = self.study.resolved()
        content["fractions"] = [*content["fractions"], float(percent) / 100]
        content["runs"] = {"ddis-gn": {"samples": 8}}
        content["tuning"] = {}
        content["operator"]["at"] = {**content["operator"]["at"], percent: {"steps": 300}}
        for part in ("joint", "prior"):
            content[part]["at"] = {}
        study = Study.load(content)
        study._folder = self.study.folder
        torch.manual_seed(int(generator(study.seed, f"initialise operator-{percent}").integers(2**62)))
        job = operator_job(study, self.name, ModelId("operator", percent), CPU, Ranks())
        for _ in job.trainer.run():
            pass
        best = job.trainer.average
        best.load_state_dict(job.trainer.best)
        return Trained(
            ModelId("operator", percent),
            self.problem,
            study.noise,
            best.eval().requires_grad_(False),
            **job.normalisation,
            spectrum=None,
            error_gain=None,
            error_spectrum=None,
            information={},
        )

    def disturbed(self, operator: Trained, target: float) -> Trained:
        """The operator with noise on its weights, in units of each tensor's own size, so large that its error is the target."""

        def noisy(size: float) -> Trained:
            network = copy.deepcopy(operator.network)
            for number, weight in enumerate(network.parameters()):
                rng = generator(self.study.seed, "weights", number)
                draw = torch.from_numpy(rng.standard_normal((*weight.shape, 2))).to(weight.real.dtype)
                draw = torch.view_as_complex(draw) if weight.is_complex() else draw[..., 0]
                weight.data += size * weight.abs().square().mean().sqrt() * draw
            return replace(operator, network=network)

        low, high = 1e-4, 1.0
        for _ in range(12):
            middle = (low * high) ** 0.5
            errors, truth = self.predictions(noisy(middle), self.coefficient[:64], self.solution[:64])
            above = float((errors.flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean()) > target
            low, high = (low, middle) if above else (middle, high)
        return noisy(low)


class Mixture(torch.nn.Module):
    """G + t (G_φ - G): the solver with a share t of the operator's errors."""

    def __init__(self, solve: Callable[[Tensor], Tensor], network: torch.nn.Module, share: float):
        super().__init__()
        self.solve, self.network, self.share = solve, network, share

    def forward(self, a: Tensor) -> Tensor:
        exact: Tensor = self.solve(a)
        return exact + self.share * (self.network(a) - exact)
