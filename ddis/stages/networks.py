"""Trained networks: how they are built from the configuration, and loaded from a study's files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddis.config import Study
from ddis.errors import DamagedError, InputError
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise, WhiteNoise, make_noise
from ddis.files import read_json
from ddis.models.backbones import make_backbone
from ddis.models.checkpoint import load_tensors
from ddis.models.edm import EDMDenoiser
from ddis.models.ids import ModelId
from ddis.models.normalisation import Normalisation
from ddis.operators.error import OperatorError
from ddis.operators.network import Network
from ddis.pde.base import Problem
from ddis.priors.base import Prior
from ddis.reading import REPAIR
from ddis.stages.layout import model_folder


def build_denoiser(study: Study, problem: str, model: ModelId) -> EDMDenoiser:
    """An untrained prior of coefficients, or a joint one of coefficients and solutions."""
    coefficient, solution = study.make_problem(problem).spaces(study.data.resolution)
    channels = coefficient.channels + (0 if model.part == "prior" else solution.channels)
    return EDMDenoiser(make_backbone(channels, coefficient.grid, getattr(study, model.part).backbone))


def build_operator(study: Study, problem: str, coefficient: Normalisation, solution: Normalisation) -> nn.Module:
    """An untrained Fourier neural operator."""
    from ddis.models.operator import FourierOperator  # neuraloperator takes seconds to import

    spaces = study.make_problem(problem).spaces(study.data.resolution)
    return FourierOperator(study.operator.network, spaces, coefficient, solution)


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, and what its model.json says.

    coefficient, solution  normalisations (no solution for a coefficient prior)
    spectrum               of a coefficient prior: variance C [*shape] of the normalised coefficient's modes
    error_gain             of an operator: what its modes are multiplied by [*shape] to predict those of the solution
    error_spectrum         of an operator: variance [*shape] of the modes of what is then left, normalised
    """

    network: nn.Module
    coefficient: Normalisation
    solution: Normalisation | None
    spectrum: Tensor | None
    error_gain: Tensor | None
    error_spectrum: Tensor | None
    information: dict[str, Any]

    def as_prior(self, noise: Noise, shape: tuple[int, ...]) -> Prior:
        """The prior of fields [*shape] that was trained with this noise."""
        zero = torch.zeros(shape, dtype=torch.float64)
        spectrum = zero if self.spectrum is None else self.spectrum
        return Prior(self.network, noise, self.coefficient, zero, spectrum, self.solution)

    def as_operator(self, modes: Basis) -> Network:
        """The operator, with its error in these modes."""
        assert self.solution is not None
        variance = self.information.get("error_variance", 0.0)
        return Network(self.network, self.solution, OperatorError(modes, variance, self.error_gain, self.error_spectrum))


def load_network(study: Study, problem: str, model: str, device: torch.device) -> Trained:
    """The network of models/<problem>/<model>. Raises InputError if it is missing, damaged, or of another configuration."""
    folder = model_folder(study, problem, model)
    digest = study.digest("train", problem=problem, model=model)
    path = folder / "model.json"
    tensors, _ = load_tensors(folder / "weights.safetensors", digest)
    try:
        information = read_json(path)
        if information["configuration"] != digest:
            raise InputError(f"{path} is of another configuration than the weights beside it; {REPAIR}")
        normalisation = {name: Normalisation(**values) for name, values in information["normalisation"].items()}
        spectrum, gain, rest = (as_tensor(information.get(name)) for name in ("spectrum", "error_gain", "error_spectrum"))
    except DamagedError as error:
        raise DamagedError(f"{error}; {REPAIR}") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged, or not of ddis ({error!r}); {REPAIR}") from error
    named = ModelId.parse(model)
    if named.part == "operator":
        network = build_operator(study, problem, normalisation["coefficient"], normalisation["solution"])
    else:
        network = build_denoiser(study, problem, named)
    network.load_state_dict(tensors)
    network.to(device).eval().requires_grad_(False)
    return Trained(network, normalisation["coefficient"], normalisation.get("solution"), spectrum, gain, rest, information)


def as_tensor(values: list[list[float]] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)


def of_folder(folder: Path) -> tuple[Study, Problem, Trained]:
    """Study, problem and network of a folder results/<study>/models/<problem>/<model>. Raises InputError."""
    path = folder.absolute()
    home = path.parents[2] if len(path.parts) > 3 else path
    if path.parents[1].name != "models" or not (home / "config.yaml").is_file():
        raise InputError(f"{folder}; accepted: results/<study>/models/<problem>/<model>, with config.yaml in results/<study>")
    study, name = Study.in_folder(home), path.parent.name
    return study, study.make_problem(name), load_network(study, name, path.name, torch.device("cpu"))


def load_prior(folder: Path) -> Prior:
    """See `ddis.prior.load`."""
    study, problem, trained = of_folder(folder)
    model = ModelId.parse(folder.name)
    if model.part == "operator":
        raise InputError(f"{folder}: an operator; accepted: prior, joint-<percent>, joint-white-<percent>")
    grid = problem.coefficient_space(study.data.resolution).grid
    noise = WhiteNoise() if model.white else make_noise(grid.basis, **study.noise.model_dump())
    return trained.as_prior(noise, grid.shape)


def load_operator(folder: Path) -> Network:
    """See `ddis.operator.load`."""
    study, problem, trained = of_folder(folder)
    if ModelId.parse(folder.name).part != "operator":
        raise InputError(f"{folder}: no operator; accepted: operator-<percent>")
    return trained.as_operator(problem.solution_space(study.data.resolution).grid.basis)
