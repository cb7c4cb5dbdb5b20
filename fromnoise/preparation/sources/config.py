"""How a source of pictures is read. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from fromnoise.core.config import Config


class SourceOptions(Config):
    """What a source does not say of itself."""

    shard: Annotated[int, Field(ge=1, le=99_999)] = 1024
    """Entries of a portion, which becomes one shard."""
    picture_column: str | None = None
    """Column of a table with the pictures: names of files, or their bytes; left out, the first with a usual name."""
    caption_columns: tuple[str, ...] = ()
    """Columns with captions, or keys of the .json of a tar; left out, the first with a usual name."""
    label_column: str | None = None
    """Column with the classes: whole numbers, or words; left out, the first with a usual name, if there is one."""
    split: str = "train"
    """Part of a hub's data set."""
    revision: str | None = None
    """Commit, tag or branch of a hub's data set; left out, the newest."""
    size: Annotated[int, Field(ge=32, le=256)] = 32
    """Side of the pictures of shapes, in pixels."""
    entries: PositiveInt | None = None
    """About how many a hub's data set has, where it does not tell."""
