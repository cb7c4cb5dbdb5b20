"""The backbones by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.models.mmdit import MMDiT


class MMDiTConfig(Config):
    """Dual-stream multimodal diffusion transformer (SD3, Qwen-Image)."""

    type: Literal["mmdit"] = "mmdit"
    patch: PositiveInt = 4
    """Side of a square patch, in pixels (or latent cells)."""
    width: PositiveInt = 192
    """Width of both streams; a multiple of `head_width`."""
    depth: PositiveInt = 6
    """Number of dual-stream blocks."""
    head_width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Width of one attention head; half rotates with the height, half with the width."""
    pooled: bool = False
    """Add the condition's pooled vector to the time's embedding, as SD3 does."""
    absolute: bool = False
    """Add sines and cosines of each patch's row and column to its embedding, as SD3 does, beside the rotation."""
    rope_theta: Annotated[float, Field(gt=1)] = 10000.0
    """Base of the rotary frequencies: the slowest pair turns by about 1 / theta a position (Qwen-Image: 10000)."""

    def build(self, channels: int, cond_width: int) -> MMDiT:
        """The module for pictures of `channels` channels and condition tokens `cond_width` wide."""
        from fromnoise.models.mmdit import MMDiT

        return MMDiT(self, channels, cond_width)


BackboneConfig = MMDiTConfig
