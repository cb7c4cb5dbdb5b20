"""Normalisation and modulation. Legend: B batch, L tokens, D width, G groups, r and c rows and columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 8  # channels, below which a group norm is slow where they lie last in memory


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


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018): mean 0 and variance 1 in each of `groups` of channels, then a learned scale
    and shift of each channel.

    PyTorch's kernel for channels that lie last takes ten times as long as the other where they are few (4 x 256 x 256:
    .85 ms in place of .06; 8 channels: as long), so that it pays to turn them for it, and back: .24 ms. Code compiled
    for a CPU lays channels last for its convolutions, and would then read those of a group one by one: there each
    channel is averaged by itself first, up to five times as fast forwards and backwards.
    """

    def __init__(self, groups: int, width: int, eps: float = 1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, r, c) -> (B, D, r, c)."""
        if torch.compiler.is_dynamo_compiling() and x.device.type == "cpu":
            return self.by_channel(x)  # (B, D, r, c)
        if x.shape[1] >= FEW or x.is_contiguous():
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)  # (B, D, r, c)
        normed = F.group_norm(x.contiguous(), self.groups, self.weight, self.bias, self.eps)  # (B, D, r, c)
        return normed.contiguous(memory_format=torch.channels_last)  # (B, D, r, c)

    def by_channel(self, x: Tensor) -> Tensor:
        """The same by mean and variance of each channel: a group's variance is the mean of theirs, and the variance of
        their means. (B, D, r, c) -> (B, D, r, c)."""
        wide = x.float()  # (B, D, r, c)
        means = wide.mean((2, 3))  # (B, D)
        variances = (wide - means[..., None, None]).square().mean((2, 3))  # (B, D)
        mean = self.of_groups(means)  # (B, D)
        variance = self.of_groups(variances + (means - mean).square())  # (B, D)
        scale = self.weight * torch.rsqrt(variance + self.eps)  # (B, D)
        shift = self.bias - mean * scale  # (B, D)
        return (wide * scale[..., None, None] + shift[..., None, None]).to(x.dtype)  # (B, D, r, c)

    def of_groups(self, numbers: Tensor) -> Tensor:
        """The mean of each channel's group, (B, D) -> (B, D).

        As a product, for what a product gives is kept; means would be taken anew at each place of the picture.
        """
        groups = numbers.unflatten(1, (self.groups, -1))  # (B, G, D / G)
        n = groups.shape[-1]
        with torch.autocast(numbers.device.type, enabled=False):
            return (groups @ groups.new_full((n, n), 1 / n)).flatten(1)  # (B, D)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN (DiT, section 3.2): layer norm without weights, then x (B, L, D) scaled and shifted by (B, 1, D)."""
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)  # (B, L, D)
    return normed * (1 + scale) + shift  # (B, L, D)
