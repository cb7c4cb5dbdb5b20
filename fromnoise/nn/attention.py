"""Attention and the position rotation it uses.

Legend: B batch, H heads, L queries, M keys, D head width, W = H D width, E width of what is attended to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn.linear import Linear

MOST = 2**25
"""Scores that are held at once: 128 MiB in float32."""
Turn = tuple[Tensor, Tensor]
"""Of a rotation, cosines (L, 1, D / 2) and sines (L, 2, D / 2): for the first half of a head they are negative."""


def bias_of(mask: Tensor) -> Tensor:
    """mask (B, M) bool, True where a key is real -> what is added to the scores, (B, 1, 1, M) float32."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -1e4)[:, None, None]  # (B, 1, 1, M)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention: q (B, H, L, D), k and v (B, H, M, D) -> (B, H, L, D).

    bias: of `bias_of`; None attends to all. On a CPU the explicit products are faster in bfloat16 than the fused
    kernel, forward and backward, 4 times on 80 tokens and 1.2 on 2,000; but they hold all scores, so no more than
    `MOST` of them. Elsewhere the fused kernel wins.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[:-1].numel() * k.shape[-2] > MOST:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # (B, H, L, M)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1).to(v.dtype) @ v  # (B, H, L, D)


def turn_of(angles: Tensor) -> Turn:
    """The rotation by `angles` (L, D / 2)."""
    sin = angles.sin()
    return angles.cos()[:, None], torch.stack((-sin, sin), 1)


def rotate(x: Tensor, turn: Turn | None) -> Tensor:
    """Rotary embedding (Su et al. 2021): number i of a head and number i + D / 2 are a point that turns.

    x (..., L, D) -> (..., L, D), as it is where there is no turn. Neighbours are paired in the paper; this order,
    GPT-NeoX's, is read many at a time.
    """
    if turn is None:
        return x
    cos, sin = turn
    point = x.float().unflatten(-1, (2, -1))  # (..., L, 2, D / 2)
    return (point * cos + point.flip(-2) * sin).flatten(-2).to(x.dtype)  # (..., L, D)


def halves(x: Tensor, head_width: int) -> Tensor:
    """Rows (H D, ...) in which the points are neighbours, in the order of `rotate`."""
    return x.unflatten(0, (-1, head_width // 2, 2)).transpose(1, 2).flatten(0, 2)  # (H D, ...)


def neighbours(x: Tensor, head_width: int) -> Tensor:
    """The inverse of `halves`."""
    return x.unflatten(0, (-1, 2, head_width // 2)).transpose(1, 2).flatten(0, 2)  # (H D, ...)


class Attention(nn.Module):
    """Multi-head attention of one sequence to itself or to another, with diffusers' names."""

    def __init__(self, width: int, source: int, head_width: int, bias: bool = True):
        super().__init__()
        if width % head_width:
            raise ValueError(f"backbone width {width} is not a multiple of head_width {head_width}")
        self.head_width = head_width
        self.to_q = nn.Linear(width, width, bias)
        self.to_k, self.to_v = nn.Linear(source, width, bias), nn.Linear(source, width, bias)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x: Tensor, source: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (B, L, W) asks source (B, M, E); bias of `bias_of` -> (B, L, W)."""
        projections = (self.to_q, x), (self.to_k, source), (self.to_v, source)
        q, k, v = (f(y).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for f, y in projections)  # (B, H, M, D)
        return self.to_out[0](attention(q, k, v, bias).transpose(1, 2).flatten(2))  # (B, L, W)
