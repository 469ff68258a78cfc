"""A network as the velocity of a flow from noise to data.

Source: Lipman et al., Flow Matching for Generative Modeling, arXiv 2210.02747; for random fields Kerrigan et al., Functional Flow
Matching, arXiv 2305.17209.
"""

from torch import Tensor, nn

from ddis.models.edm import same_shape


class Velocity(nn.Module):
    """v(x_t, t) [B, C, *nodes] of normalised fields x_t at times t [B], 0 where there is noise alone, and 1 at the data."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return same_shape(self.backbone(x_t, t.to(x_t.dtype)), x_t)
