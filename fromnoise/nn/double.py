"""Twice the side of a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def doubled(x: Tensor) -> Tensor:
    """(B, D, r, c) -> (B, D, 2 r, 2 c): each place four times, as `interpolate(x, scale_factor=2)` does.

    That one is the quickest on a CPU only where channels lie last in memory; elsewhere the stacks take half its time,
    forwards and backwards. And its gradient is lost in torch 2.13 where a block in bfloat16 is compiled for a CPU: it
    comes out as zero.
    """
    if not torch.compiler.is_compiling() and (x.stride(1) == 1 or x.device.type != "cpu"):
        return F.interpolate(x, scale_factor=2.0)  # (B, D, 2 r, 2 c)
    wide = torch.stack((x, x), -1).flatten(-2)  # (B, D, r, 2 c)
    return torch.stack((wide, wide), -2).flatten(2, 3)  # (B, D, 2 r, 2 c)
