"""The pictures that were drawn: PNGs in a folder, which say themselves how they were made, and so survive a restart."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fromnoise.studio.asked import Restored, restored

SHOWN = 48


class Picture(NamedTuple):
    """One of the gallery."""

    file: Path
    drawn: Restored


class Gallery:
    """The newest pictures in a folder that were drawn by fromnoise, here or elsewhere."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.known: dict[tuple[Path, int], Picture | None] = {}  # None: another picture, as a sheet or a plot

    def newest(self) -> list[Picture]:
        """The `SHOWN` newest, first."""
        files: dict[Path, int] = {}
        for path in self.folder.glob("*.png"):
            with suppress(OSError):  # deleted meanwhile, or a link to what is
                files[path] = path.stat().st_mtime_ns
        found: list[Picture] = []
        for path in sorted(files, key=lambda path: (files[path], path.name), reverse=True):
            key = (path, files[path])
            if key not in self.known:
                self.known[key] = _read(path)
            if picture := self.known[key]:
                found.append(picture)
            if len(found) == SHOWN:
                break
        return found


def _read(path: Path) -> Picture | None:
    try:
        return Picture(path, restored(path))
    except ValueError:
        return None
