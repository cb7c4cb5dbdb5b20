"""Embeddings that several models share. Legend: B batch, D width, h and w rows and columns of a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def time_features(t: Tensor, width: int, slowest: int = 0) -> Tensor:
    """Sinusoids of 1000 t (DDPM, section 4; Vaswani et al. 2017): t (B,) -> (B, width) float32, cosines first.

    The slowest frequency is next to 1 / 10000, and just that with `slowest` = 1 (diffusers' downscale_freq_shift).
    Computed in float32 whatever autocast says: in bfloat16 only 506 of 1000 times stay distinct.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device) / (half - slowest)  # (width / 2,)
    frequencies = torch.exp(-math.log(10000.0) * steps)  # (width / 2,)
    angles = 1000.0 * (t.float()[:, None] * frequencies)  # (B, width / 2)
    return torch.cat((angles.cos(), angles.sin()), -1)  # (B, width)


def grid_features(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """Sinusoids of where each patch of a grid stands (MAE: He et al. 2022; DiT, SD3): (h w, width) float32.

    rows (h,), columns (w,): places, 1 apart as a rule, on the device that the features are wanted on: to copy them
    there, a GPU would have to end all that it was asked for. Half are of the column, half of the row; sines first in
    each. `width` is a multiple of 4.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, device=rows.device) / (width // 4))  # (width / 4,)
    across = columns.repeat(len(rows))[:, None] * frequencies  # (h w, width / 4)
    down = rows.repeat_interleave(len(columns))[:, None] * frequencies  # (h w, width / 4)
    return torch.cat((across.sin(), across.cos(), down.sin(), down.cos()), -1)  # (h w, width)


class TimestepEmbedding(nn.Module):
    """Two-layer MLP on time features, with diffusers' names."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(features, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, features) -> (B, D)."""
        return self.linear_2(nn.functional.silu(self.linear_1(features)))  # (B, D)
