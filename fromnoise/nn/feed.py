"""The feed-forward layer of a transformer, with diffusers' names. Legend: B batch, M tokens, D width."""

from __future__ import annotations

from torch import Tensor, nn

from fromnoise.nn.gelu import gelu
from fromnoise.nn.linear import Linear


class GELU(nn.Module):
    """Linear, then GELU by its tanh form; named as diffusers names it."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.proj = Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.proj(x))  # (B, M, 4 D)


class FeedForward(nn.Module):
    """D -> 4 D -> D."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList([GELU(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))  # (B, M, D)
