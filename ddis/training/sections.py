"""The sections of a configuration that say what is trained: a network, and how long. Importing them imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SerializeAsAny, ValidationError, field_validator

from ddis.models.architectures import Architecture, architecture_of
from ddis.models.architectures.fno import FNO
from ddis.models.backbones import BACKBONES, Backbone, backbone_of
from ddis.models.backbones.unet import UNet
from ddis.refusals import SettingError, below, explain, validated
from ddis.settings import AtPercent, NoiseSettings, Settings
from ddis.training.settings import PhysicsSettings, TrainingSettings
from ddis.yaml_text import merged

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ddis.fields.noise import Noise
    from ddis.grid import Grid
    from ddis.models.operator import NeuralOperator
    from ddis.pde.base import Problem, Symmetry
    from ddis.training.augmentation import Augmentation

UNET: str = UNet().name
RESERVED = ("solver", "corrected")  # names of operators that no section may have


class TrainedSettings(Settings, ABC):
    """A training; `at` changes it at a percent of the pairs: `at: {1: {steps: 300}}`.

    resolution  nodes per side that fields are restricted to for the training (ddis.training.coarse); None: all there are
    """

    training: TrainingSettings = TrainingSettings()
    at: AtPercent = Field({})
    resolution: int | None = Field(None, ge=4, exclude_if=lambda resolution: resolution is None)

    def training_at(self, percent: str) -> TrainingSettings:
        """The training at a percent of the pairs. Raises SettingError."""
        try:
            return TrainingSettings.model_validate({**self.training.model_dump(), **self.at.get(percent, {})})
        except ValidationError as error:
            raise SettingError(f"at.{percent}: {explain(TrainingSettings, error.errors()[0])}") from error

    @abstractmethod
    def versioned(self) -> dict[str, type]:
        """The classes whose versions the weights are of, by their names in ddis/versions.py."""

    @abstractmethod
    def check_finer(self, resolution: int) -> None:
        """Raises SettingError if the network, trained on S = `resolution` nodes per side, does not serve a finer grid."""

    @abstractmethod
    def flops(self, resolution: int) -> float:
        """Of one field of S x S nodes through the network, about."""

    @property
    @abstractmethod
    def finest(self) -> int:
        """Channels of the network's tensors on all nodes."""


class PriorSettings(TrainedSettings):
    """A kind of trained prior: its network, and its losses. Each kind adds its settings.

    kind   its name in ddis/versions.py
    takes  names of what its network takes, noisy fields and their levels; gives: of what that makes of them
    augmentation: probability with which a training field is moved by a symmetry of the distribution
    """

    kind: ClassVar[str]
    takes: ClassVar[tuple[str, str]] = ("x_t", "sigma")
    gives: ClassVar[str] = "x0_hat"
    backbone: SerializeAsAny[Backbone] = UNet()
    augmentation: float = Field(0.0, ge=0, le=1)

    @field_validator("backbone", mode="before")
    @classmethod
    def _chosen(cls, given: Any) -> Backbone:
        return backbone_of(given)

    @abstractmethod
    def build(self, channels: int, grid: "Grid", coordinates: bool = False, coarse: "Grid | None" = None) -> "nn.Module":
        """The network of noisy fields [B, C, *nodes] and their levels [B]; `backbone` is the part that is accelerated.

        coordinates: whether it is told those along periodic axes; coarse: the grid that it is trained on, if another one.
        """

    def build_backbone(self, channels: int, grid: "Grid", coordinates: bool) -> "nn.Module":
        """The network's part that takes normalised noisy fields, with their coordinates or without."""
        from ddis.models.coordinates import WithCoordinates

        return WithCoordinates(self.backbone, channels, grid) if coordinates else self.backbone.build(channels, grid)

    @property
    def filters(self) -> bool:
        """Whether filters of the modes of its own nodes belong to the network, which then serves no others."""
        return False

    def fit(self, network: "nn.Module", fields: "Callable[[Grid], Iterable[Tensor]]", noise: "Callable[[Grid], Noise]") -> None:
        """Before the training: lets the network take what it is to know of the training fields and the noise, by the grid.

        fields: normalised ones [N, C, *nodes], in blocks.
        """

    @abstractmethod
    def training_loss(
        self,
        network: "nn.Module",
        data: "Tensor",
        noise: "Noise",
        seed: int,
        first: int,
        augmentation: "Augmentation | None" = None,
    ) -> "Callable[[np.ndarray, int], Tensor]":
        """The loss of a step: a function of indices of the normalised fields `data` [N, C, *nodes], and of the step.

        What is drawn depends on (seed, step, place in the batch); `first` is the place of the first of the indices.
        """

    @abstractmethod
    def validation_loss(self, data: "Tensor", noise: "Noise", seed: int) -> "Callable[[nn.Module], float]":
        """The loss on held-out fields, with the same draws at every call."""

    def moved(self, symmetries: "Collection[Symmetry]", seed: int) -> "Augmentation | None":
        """What moves training fields by these symmetries of their distribution; None: nothing does."""
        from ddis.training.augmentation import Augmentation

        return Augmentation(self.augmentation, symmetries, seed) if self.augmentation else None

    def noise_or(self, noise: NoiseSettings) -> NoiseSettings:
        """The noise that its fields are mixed with; `noise` is the study's."""
        return noise

    def versioned(self) -> dict[str, type]:
        """The U-Net belongs to the kind, and has no version of its own."""
        name = self.backbone.name
        key = f"backbone-{name}" if name in BACKBONES.builtin else name
        kinds = {self.kind: type(self)} | ({} if name == UNET else {key: type(self.backbone)})
        return kinds | dict.fromkeys(self.backbone.versions, type(self.backbone))

    def check_finer(self, resolution: int) -> None:
        below("backbone", self.backbone.check_finer, resolution)

    def flops(self, resolution: int) -> float:
        return self.backbone.flops(resolution)

    @property
    def finest(self) -> int:
        return self.backbone.finest


class OperatorSettings(TrainedSettings):
    """A neural operator and its training; physics: terms of its loss beside the pairs."""

    network: SerializeAsAny[Architecture] = FNO()
    physics: PhysicsSettings | None = Field(None, exclude_if=lambda physics: physics is None)

    @field_validator("network", mode="before")
    @classmethod
    def _chosen(cls, given: Any) -> Architecture:
        return architecture_of(given)

    def training_loss(
        self,
        network: "NeuralOperator",
        pairs: "tuple[Tensor, Tensor]",
        coefficients: "Tensor",
        problem: "Problem",
        seed: int,
        batch: int,
        places: slice = slice(None),
    ) -> "Callable[[np.ndarray, int], Tensor]":
        """The loss of a step on normalised pairs [N, *shape], and on others of the coefficients where `physics` says so."""
        from ddis.training import physics, regression

        if self.physics is None:
            return regression.training_loss(network, *pairs)
        assert problem.resolution is not None
        equation = physics.Equation(problem, problem.solution_space(problem.resolution).grid, self.physics)
        return physics.training_loss(network, pairs, coefficients, equation, seed, batch, places)

    @property
    def name(self) -> str:
        """What runs call the study's own operator."""
        return self.network.architecture

    def versioned(self) -> dict[str, type]:
        return {self.name: type(self.network)} | ({} if self.physics is None else {"physics": PhysicsSettings})

    def check_finer(self, resolution: int) -> None:
        below("network", self.network.check_finer, resolution)

    def flops(self, resolution: int) -> float:
        return self.network.flops(resolution)

    @property
    def finest(self) -> int:
        return self.network.finest


def operator_variants(base: OperatorSettings, given: Mapping[str, Any]) -> dict[str, OperatorSettings]:
    """Operators by name, each with what it does not give from `base`. Raises SettingError."""
    for name in given:
        if name in RESERVED or name == base.name:
            others = ", ".join([base.name, *RESERVED])
            raise SettingError(f"{name}: the name of another operator; accepted: other names than {others}")
    return {name: below(name, _variant, base, part) for name, part in given.items()}


def _variant(base: OperatorSettings, given: Any) -> OperatorSettings:
    """A network of another architecture is taken whole."""
    if isinstance(given, Mapping | None):
        own, whole = dict(given or {}), base.model_dump(mode="json")
        network = own.get("network")
        if isinstance(network, Mapping) and network.get("architecture", base.name) != base.name:
            del whole["network"]
        given = merged(whole, own)
    return validated(OperatorSettings, given, "{network: {architecture: unet}}")
