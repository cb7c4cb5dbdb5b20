"""Normalisation and modulation. Legend: B batch, L tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale (Zhang and Sennrich 2019), in float32 inside."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        wide = x.float()  # (..., D)
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN (DiT, section 3.2): layer norm without weights, then x (B, L, D) scaled and shifted by (B, 1, D)."""
    normed = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)  # (B, L, D)
    return normed * (1 + scale) + shift  # (B, L, D)
