"""Trained networks: how they are built from a study's configuration, and loaded from its files."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddis.config import Study
from ddis.errors import DamagedError, InputError
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise, WhiteNoise, make_noise
from ddis.files import read_json, read_text
from ddis.grid import Space
from ddis.models.checkpoint import load_tensors
from ddis.models.ids import OPERATOR, PARTS, ModelId
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.models.wiener import WienerDenoiser
from ddis.operators.error import OperatorError
from ddis.operators.network import Network
from ddis.pde import make_problem
from ddis.pde.base import Problem
from ddis.posterior import spaces_of
from ddis.priors.base import Prior
from ddis.reading import REPAIR
from ddis.settings import NoiseSettings
from ddis.steps import Step, check_settings


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, and what its model.json says.

    model, problem, noise  what it is, of which problem, and the noise that its fields are mixed with
    coefficient, solution  normalisations (no solution for a coefficient prior)
    spectrum               of a coefficient prior: variance C [*shape] of the normalised coefficient's modes
    error_gain             of an operator: what its modes are multiplied by [*shape] to predict those of the solution
    error_spectrum         of an operator: variance [*shape] of the modes of what is then left, normalised
    excess                 of a coefficient prior: its error over that of the best linear denoiser, by noise level
    """

    model: ModelId
    problem: Problem
    noise: NoiseSettings
    network: nn.Module
    coefficient: Normalisation
    solution: Normalisation | None
    spectrum: Tensor | None
    error_gain: Tensor | None
    error_spectrum: Tensor | None
    information: dict[str, Any]
    excess: dict[float, float] | None

    def as_prior(self) -> Prior:
        """The prior of this network. Raises InputError for an operator's."""
        if self.model.part == OPERATOR:
            priors = ", ".join(part for part in PARTS if part != OPERATOR)
            raise InputError(f"model {self.model}: an operator; accepted: models of {priors}")
        space = spaces_of(self.problem)[0]
        zero = torch.zeros(space.shape, dtype=torch.float64)
        spectrum = zero if self.spectrum is None else self.spectrum
        noise = noise_of(self.noise, space.grid.basis, self.model.white)
        kind = "coefficient" if self.model.part == "prior" else self.model.part
        return Prior(self.network, noise, self.coefficient, zero, spectrum, self.solution, excess=self.excess, kind=kind)

    def as_operator(self) -> Network:
        """The operator of this network, with its error. Raises InputError for a prior's."""
        if self.model.part != OPERATOR or self.solution is None:
            raise InputError(f"model {self.model}: no operator; accepted: operator-<percent>, operator-NAME-<percent>")
        variance = self.information.get("error_variance", 0.0)
        spaces = spaces_of(self.problem)
        error = OperatorError(spaces[1].grid.basis, variance, self.error_gain, self.error_spectrum)
        return Network(self.network, self.solution, error, spaces)

    def on(self, problem: Problem) -> "Trained":
        """The same network for fields of the problem on another number of nodes. Raises InputError where it does not serve them.

        Noise keeps its kernel and length, and the modes of fields and of the operator's error their size as functions: with S'
        instead of S nodes per side a variance is (S'/S)² times as large, and 0 for modes that the network has not seen. How good
        prior and operator are on these nodes, what was measured on their own does not say.
        """
        spaces = spaces_of(problem)
        self.check_nodes(spaces)
        return replace(
            self,
            problem=problem,
            spectrum=_resized(self.spectrum, spaces[0].shape, scaled=True),
            error_gain=_resized(self.error_gain, spaces[1].shape, scaled=False),
            error_spectrum=_resized(self.error_spectrum, spaces[1].shape, scaled=True),
            excess=None,
        )

    def check_nodes(self, spaces: tuple[Space, Space]) -> None:
        """Raises InputError unless the network serves fields of the same domain with these nodes.

        It does not on masked domains, nor where it needs a Wiener filter that it does not have. An operator does not from a line
        to two axes, as it repeats the line on its own nodes, nor where its padding is another share of them.
        """
        a, u = (space.grid for space in spaces_of(self.problem))
        if isinstance(self.network, WienerDenoiser) and str(spaces[0].grid) not in self.network.filters:
            filtered = ", ".join(self.network.filters)
            raise InputError(f"resolution: the prior (preconditioning: wiener) has filters of the modes of {filtered} nodes only")
        if any(space.grid.mask is not None for space in spaces):
            raise InputError(f"resolution: the network knows its domain on its own nodes only, {a}")
        if not isinstance(self.network, NeuralOperator):
            return
        if len(a.shape) != len(u.shape):
            raise InputError(
                f"resolution: an operator from {a} to {u} nodes repeats its input on its own {u.axes[-1]}; accepted: {a}"
            )
        padded = self.network.architecture.padded
        for own, other, wraps in zip(u.shape, spaces[1].grid.shape, u.periodic, strict=True):
            if not wraps and not self.network.architecture.pads_alike(own, other):
                raise InputError(
                    f"resolution: the operator pads {padded(other)} of {other} nodes, in its training {padded(own)} of {own}; "
                    f"accepted: numbers of nodes with the same share, such as {own}"
                )


def _resized(values: Tensor | None, shape: tuple[int, ...], scaled: bool) -> Tensor | None:
    """Variances of modes [*shape] on other axes, 0 where there was no mode; or factors, not scaled, 1 where there was none."""
    if values is None:
        return None
    found = torch.full(shape, 0.0 if scaled else 1.0, dtype=values.dtype)
    shared = tuple(slice(min(sizes)) for sizes in zip(values.shape, shape, strict=True))
    found[shared] = values[shared] * (math.prod(shape) / math.prod(values.shape) if scaled else 1.0)
    return found


def noise_of(settings: NoiseSettings, modes: Basis, white: bool) -> Noise:
    """The noise of the diffusion: a random field of these modes, or white."""
    return WhiteNoise() if white else make_noise(modes, **settings.model_dump())


def untrained(study: Study, problem: str, model: ModelId, normalisation: Mapping[str, Normalisation]) -> nn.Module:
    """The network of a model with random weights; normalisation of coefficient and solution, which an operator holds."""
    coefficient, solution = study.make_problem(problem).spaces(study.data.resolution)
    if model.part == OPERATOR:
        settings = study.operator_section(model)
        return NeuralOperator(settings.network, (coefficient, solution), normalisation["coefficient"], normalisation["solution"])
    channels, located = prior_channels((coefficient, solution), model), study.located(problem, model)
    resolution, coarse = study.training_resolution(model), None
    if resolution != study.data.resolution:
        coarse = study.make_problem(problem).coefficient_space(resolution).grid
    return study.prior_section(model).build(channels, coefficient.grid, located, coarse)


def prior_channels(spaces: tuple[Space, Space], model: ModelId) -> int:
    """Channels of a prior's fields: of the coefficient, and of a joint prior of the solution."""
    return spaces[0].channels + (spaces[1].channels if model.percent else 0)


def load_network(study: Study, problem: str, model: str, device: torch.device) -> Trained:
    """The network of models/<problem>/<model>. Raises InputError if it is missing, damaged, or of another configuration."""
    folder = study.folder / "models" / problem / model
    path, weights = folder / "model.json", folder / "weights.safetensors"
    tensors, metadata = load_tensors(weights)
    check_settings(study, Step("train", {"problem": problem, "model": model}), weights, metadata.get("configuration"))
    try:
        information = read_json(path)
        if information["configuration"] != metadata["configuration"]:
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
    network = untrained(study, problem, named, normalisation)
    network.load_state_dict(tensors)
    network.to(device).eval().requires_grad_(False)
    scales = normalisation["coefficient"], normalisation.get("solution")
    made = study.make_problem(problem)
    excess = read_excess(folder / "denoising.csv")
    return Trained(named, made, study.noise_of(named), network, *scales, spectrum, gain, rest, information, excess)


def read_excess(path: Path) -> dict[float, float] | None:
    """Excess of a denoiser's error by noise level, from the file that its training writes; None where there is none."""
    if not path.exists():
        return None
    try:
        return {float(row["sigma"]): float(row["excess"]) for row in csv.DictReader(read_text(path).splitlines())}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged, or not of ddis ({error!r}); {REPAIR}") from error


def as_tensor(values: list[list[float]] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)


def of_folder(folder: Path | str, resolution: int | None = None) -> Trained:
    """The network of a folder results/<study>/models/<problem>/<model>, on the CPU. Raises InputError.

    resolution: nodes per side, if others than the study's (see `Trained.on`).
    """
    path = Path(folder).absolute()
    home = path.parents[2] if len(path.parts) > 3 else path
    if path.parents[1].name != "models" or not (home / "config.yaml").is_file():
        raise InputError(f"{folder}; accepted: results/<study>/models/<problem>/<model>, with config.yaml in results/<study>")
    study, name = Study.in_folder(home), path.parent.name
    trained = load_network(study, name, path.name, torch.device("cpu"))
    if resolution in (None, study.data.resolution):
        return trained
    settings = study.problems[name]
    return trained.on(make_problem(settings.pde, settings.parameters, resolution))
