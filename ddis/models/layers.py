"""Layers that networks share: products over channels, normalisation in groups, attention, and the embedding of a noise level."""

import math

import torch
from torch import Tensor, nn

from ddis.models.levels import groups_of


class PointwiseConv(nn.Conv1d):
    """A convolution of kernel size 1 as a batch of products over the channels, which on a CPU is quicker than oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight[:, :, 0].expand(len(x), -1, -1)
        return torch.bmm(weight, x) if self.bias is None else torch.baddbmm(self.bias[:, None], weight, x)


class Channels(PointwiseConv):
    """The same linear map of the channels at every node: fields [B, C, *nodes] to [B, C', *nodes]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(2)).unflatten(2, x.shape[2:])


def group_norm(channels: int, least: int, affine: bool = True) -> nn.Module:
    """Normalisation of groups of at least `least` channels, each over its nodes."""
    return nn.GroupNorm(groups_of(channels, least), channels, affine=affine)


class Attention(nn.Module):
    """Self-attention over all nodes of fields [B, C, *nodes]: x + W_o (softmax(qᵀ k / sqrt(C)) v), one head.

    It knows no distances, so its weights serve any number of nodes; its memory grows with the square of that number. Untrained it
    gives x. Source: Ho et al., Denoising Diffusion Probabilistic Models, arXiv 2006.11239, appendix B.
    """

    def __init__(self, channels: int, group: int):
        super().__init__()
        self.norm = group_norm(channels, group)
        self.query_key_value = Channels(channels, 3 * channels)
        self.out = Channels(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query_key_value(self.norm(x)).flatten(2).chunk(3, dim=1)
        weights = (q.mT @ k / math.sqrt(x.shape[1])).softmax(dim=-1)
        return x + self.out((v @ weights.mT).unflatten(2, x.shape[2:]))


class NoiseEmbedding(nn.Module):
    """Features [B, D] of c_noise [B]: sines and cosines of geometrically spaced frequencies, then two linear layers."""

    frequencies: Tensor

    def __init__(self, features: int):
        super().__init__()
        half = features // 2
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(64.0), half)), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * half, features), nn.SiLU(), nn.Linear(features, features))

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise.float()[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))
