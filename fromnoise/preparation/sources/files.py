"""Files as they were when they were listed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from fromnoise.preparation.sources.source import hashed


class Stamp(NamedTuple):
    """What shows that a file is another one than before."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""


ABSENT = Stamp(-1, 0)


def stamp(file: Path | IO[bytes]) -> Stamp:
    """Of a file, open or by name; `ABSENT` where there is none."""
    try:
        found = file.stat() if isinstance(file, Path) else os.fstat(file.fileno())
    except OSError:
        return ABSENT
    return Stamp(found.st_size, found.st_mtime_ns)


def refuse_changed(path: Path, listed: Stamp, now: Stamp) -> None:
    """Find that a file is as it was `listed`.

    Raises:
        ValueError: one line that names it.
    """
    if now != listed:
        what = f"was {listed.size:,} bytes, now {now.size:,}"
        if ABSENT in (now, listed):
            what = "is gone" if now == ABSENT else "was not there"
        elif now.size == listed.size:
            what = "was written anew"
        raise ValueError(f"{path} changed since it was listed: it {what}; start again when nothing writes there")


class Files:
    """Picture files below a directory, by their relative names; 16 bytes for each besides its name."""

    def __init__(self, root: Path, names: Sequence[str]):
        self.root, self.names = root, names
        self.sizes, self.times = array("q"), array("q")
        for name in names:
            size, modified = stamp(root / name)
            self.sizes.append(size)
            self.times.append(modified)

    def sha256(self) -> str:
        """Over names, sizes and times of all files."""
        rows = zip(self.names, self.sizes, self.times, strict=True)
        return hashed(f"{name}\0{size}\0{modified}" for name, size, modified in rows)

    def read(self, place: int) -> bytes | str:
        """The bytes of a file, or why it cannot be read.

        Raises:
            ValueError: one line, when it changed since it was listed.
        """
        path, listed = self.root / self.names[place], Stamp(self.sizes[place], self.times[place])
        try:
            with open(path, "rb") as file:
                content = file.read()
                refuse_changed(path, listed, stamp(file))
        except OSError as error:
            refuse_changed(path, listed, stamp(path))
            return error.strerror or type(error).__name__
        return content
