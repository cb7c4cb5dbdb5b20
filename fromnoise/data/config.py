"""The data sets by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.data.folder import FolderData
    from fromnoise.data.shapes import ShapesData


class ShapesConfig(Config):
    """Procedural captioned scenes of one to four coloured shapes: endless, seeded, with an exact checker."""

    type: Literal["shapes"] = "shapes"
    size: Annotated[int, Field(ge=32, le=256)] = 32
    """Side of a picture, in pixels."""

    def build(self, seed: int) -> ShapesData:
        from fromnoise.data.shapes import ShapesData

        return ShapesData(self, seed)


class FolderConfig(Config):
    """A directory of pictures with captions: metadata.jsonl, a CSV, or a .txt beside each picture."""

    type: Literal["folder"] = "folder"
    path: Path
    """The directory."""
    size: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square that pictures are resized and centre-cropped to, in pixels."""
    flip: bool = False
    """Mirror half of the pictures, except where the caption names a side."""
    background: Annotated[int, Field(ge=0, le=255)] = 255
    """Grey level that transparent pictures are laid on."""

    def build(self, seed: int) -> FolderData:
        from fromnoise.data.folder import FolderData

        return FolderData(self, seed)


DataConfig = Annotated[ShapesConfig | FolderConfig, Field(discriminator="type")]
