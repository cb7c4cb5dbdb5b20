"""Pictures to patches and back.

Legend: B batch, C channels, h and w patches down and across, N = h w patches, p patch side, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def grid_of(x: Tensor, p: int) -> tuple[int, int]:
    """Patches down and across of x (B, C, h p, w p); ValueError where there is a part of a patch."""
    height, width = x.shape[-2:]
    if height % p or width % p:
        raise ValueError(f"size {height}x{width} is not a multiple of the patch, {p}")
    return height // p, width // p


def pack(x: Tensor, p: int) -> Tensor:
    """(B, C, h p, w p) -> (B, h w, C p p), channel first within a patch, rows of patches first."""
    b, c, height, width = x.shape
    patches = x.reshape(b, c, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)  # (B, h, w, C, p, p)
    return patches.reshape(b, (height // p) * (width // p), c * p * p)  # (B, h w, C p p)


def unpack(tokens: Tensor, h: int, w: int, p: int) -> Tensor:
    """(B, h w, C p p) -> (B, C, h p, w p): the inverse of `pack`."""
    b, _, inside = tokens.shape
    c = inside // (p * p)
    patches = tokens.reshape(b, h, w, c, p, p).permute(0, 3, 1, 4, 2, 5)  # (B, C, h, p, w, p)
    return patches.reshape(b, c, h * p, w * p)  # (B, C, h p, w p)


class PatchEmbed(nn.Module):
    """Patches to tokens; the weights are a convolution's, as in diffusers, but a product of patches is faster."""

    def __init__(self, channels: int, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h p, w p) -> (B, N, D)."""
        return F.linear(pack(x, self.patch), self.proj.weight.flatten(1), self.proj.bias)  # (B, N, D)


def channel_first(rows: Tensor, p: int) -> Tensor:
    """Rows (p p C, ...) that make a patch channel last, as diffusers has most, in the order of `pack`: (C p p, ...)."""
    return rows.unflatten(0, (p * p, -1)).transpose(0, 1).flatten(0, 1)  # (C p p, ...)


def channel_last(rows: Tensor, p: int) -> Tensor:
    """The inverse of `channel_first`."""
    return rows.unflatten(0, (-1, p * p)).transpose(0, 1).flatten(0, 1)  # (p p C, ...)
