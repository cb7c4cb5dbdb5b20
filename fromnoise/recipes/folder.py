"""Your own pictures and captions."""

from __future__ import annotations

from pathlib import Path

from fromnoise.data.config import FolderConfig
from fromnoise.training.run import Run


def folder(path: str | Path = "your-pictures") -> Run:
    """Your own pictures: a directory with metadata.jsonl, a CSV, or a .txt of captions beside each picture.

    `path` is that directory; from the command line it is --data.path.

    Hardware: CPU cores for 32 pixels, a GPU for more.
    Command:  fromnoise train folder --data.path DIR --directory runs/folder
    """
    return Run(recipe="folder", data=FolderConfig(path=Path(path)))
