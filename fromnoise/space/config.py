"""The spaces by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.space.pixel import PixelSpace


class PixelConfig(Config):
    """Pixels in [-1, 1], shifted."""

    type: Literal["pixel"] = "pixel"
    shift: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """What is taken from every value: that of the commonest colour makes it 0, which a model draws from the first step
    on."""

    def build(self) -> PixelSpace:
        from fromnoise.space.pixel import PixelSpace

        return PixelSpace(self.shift)
