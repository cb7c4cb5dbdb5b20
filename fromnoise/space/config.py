"""The spaces by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.space.pixel import PixelSpace


class PixelConfig(Config):
    """Pixels as they are, in [-1, 1]."""

    type: Literal["pixel"] = "pixel"

    def build(self) -> PixelSpace:
        from fromnoise.space.pixel import PixelSpace

        return PixelSpace()
