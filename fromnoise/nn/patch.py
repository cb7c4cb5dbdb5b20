"""Pictures to patches and back. Legend: B batch, C channels, h and w patches down and across, p patch side."""

from __future__ import annotations

from torch import Tensor


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
