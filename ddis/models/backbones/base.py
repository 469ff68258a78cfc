"""What a backbone of priors is: its settings, the network that is built from them, and what that costs."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Grid


class Backbone(BaseModel, ABC):
    """Settings of a backbone; each adds its own. Those of the configuration, so no module of it imports torch.

    name  in the registry, or module:attribute of one outside the package
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    name: str

    @abstractmethod
    def build(self, channels: int, grid: "Grid") -> "nn.Module":
        """The network F: fields [B, C, *nodes] and c_noise [B], a number for the noise level of each, to [B, C, *nodes]."""

    def check_finer(self, resolution: int) -> None:
        """Raises SettingError if weights that are trained on S = `resolution` nodes per side do not serve a finer grid."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Names in ddis/versions.py of what it has beside its architecture."""
        return ()

    @abstractmethod
    def flops(self, resolution: int) -> float:
        """Of one field of S x S nodes through the network, about."""

    @property
    @abstractmethod
    def finest(self) -> int:
        """Channels of its tensors on all nodes, which most of its memory holds."""
