"""Pixel space: the backbone sees the pictures themselves. Legend: B batch, C channels, H height, W width."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class PixelSpace(nn.Module):
    """Pictures in [-1, 1], less `shift`. Nothing to learn, nothing to draw, nothing to keep."""

    state: ClassVar[dict[str, Any]] = {}
    notice = ""
    factor = 1  # pixels along the side of a latent cell

    def __init__(self, shift: float):
        super().__init__()
        self.shift = shift

    def latent_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Shape of the latent of one (C, H, W) picture."""
        return channels, height, width

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] to what is stored of them."""
        return images - self.shift  # (B, C, H, W)

    def latent(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What is stored (B, C, H, W) to the latent that the backbone learns; draws nothing from `generator`."""
        return stored

    def decode(self, z: Tensor) -> Tensor:
        """A latent (B, C, H, W) to pictures (B, C, H, W) in [-1, 1]; what lies outside is clipped."""
        return (z + self.shift).clamp(-1, 1)  # (B, C, H, W)
