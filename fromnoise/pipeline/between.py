"""Between two pictures: noise along a great circle, conditions along a straight line.

Legend: B places between, L tokens, D width, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.core.types import Cond


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985) from a to b (C, H, W), at `weights` (B,): (B, C, H, W).

    Gaussian noise of many numbers lies near a sphere; the straight line between two draws passes far inside of it,
    where no network has seen noise: halfway its deviation is 0.71.
    """
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    angle = cosine.clamp(-1, 1).acos()
    if angle < 1e-3:  # the same noise: any way between them is the same
        return torch.lerp(a, b, weights[:, None, None, None])
    kept, gained = ((share * angle).sin() / angle.sin() for share in (1 - weights, weights))  # (B,) each
    return kept[:, None, None, None] * a + gained[:, None, None, None] * b


def lerp(cond: Cond, weights: Tensor) -> Cond:
    """The two conditions of `cond` mixed at `weights` (B,): B conditions, of which 0 and 1 are these two.

    Where one text is shorter, the mean of its tokens stands in for those that it lacks, so that what is added to it on
    the way to the longer one begins with nothing new.
    """
    real = cond.mask[..., None]  # (2, L, 1)
    mean = (cond.tokens * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)  # (2, 1, D)
    a, b = torch.where(real, cond.tokens, mean)  # (L, D) each
    first, second = cond.mask  # (L,) each
    w = weights[:, None]  # (B, 1)
    mask = (first & (w < 1)) | (second & (w > 0))  # (B, L)
    tokens = torch.lerp(a, b, w[..., None].to(a.dtype)) * mask[..., None]  # (B, L, D)
    one, other = cond.vector  # (D,) each
    return Cond(tokens, mask, torch.lerp(one, other, w.to(one.dtype)))
