"""What an architecture of neural operators is: its settings, the network that is built from them, and what that costs."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Space


class Architecture(BaseModel, ABC):
    """Settings that every architecture has; each adds its own. Those of the configuration, so no module of it imports torch.

    architecture  name in the registry, or module:attribute of one outside the package
    padding       reflected nodes on each side, as a share of the side (0 on periodic domains, whatever is set)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    architecture: str
    padding: float = Field(0.0, ge=0, lt=1)

    @abstractmethod
    def build(self, coefficient: "Space", solution: "Space") -> "nn.Module":
        """The network, normalised channels [B, C, *nodes] -> [B, C', *nodes] with random weights of torch's generator.

        C and C' are the channels of the two spaces; the nodes are those of the solution's grid and of its padding, so any number.
        """

    def padded(self, size: int) -> int:
        """Reflected nodes on each side of a bounded axis of so many nodes."""
        return round(self.padding * size)

    def pads_alike(self, size: int, other: int) -> bool:
        """Whether the padding is the same share of two such axes; where it is another, the network's Fourier modes are others."""
        return self.padded(size) * other == self.padded(other) * size

    def check_finer(self, resolution: int) -> None:
        """Raises SettingError if weights that are trained on S = `resolution` nodes per side do not serve a finer grid."""

    @abstractmethod
    def flops(self, resolution: int) -> float:
        """Of one field of S x S nodes through the network, about."""

    @property
    @abstractmethod
    def finest(self) -> int:
        """Channels of its tensors on all nodes, which most of its memory holds."""
