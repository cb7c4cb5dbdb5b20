"""Many files read by a few threads, of which some cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fromnoise.data.texts import shown

T = TypeVar("T")
PORTION = 256  # files between two chances for Ctrl-C, which does not wait for all


def read_all(
    folder: Path, names: Sequence[str], read: Callable[[int], T], advance: Callable[[int, int], None]
) -> tuple[dict[str, T], dict[str, str]]:
    """What `read(place)` gives for each of `names`, which are files in `folder`; and why some cannot be read.

    `advance` is called now and then with how many are done, and how many there are.
    """
    found: dict[str, T] = {}
    unreadable: dict[str, str] = {}

    def attempt(place: int) -> None:
        name = names[place]
        try:
            found[name] = read(place)
        except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
            unreadable[name] = reason(error, folder / name)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(names), PORTION):
            end = min(start + PORTION, len(names))
            for _ in threads.map(attempt, range(start, end)):
                pass
            advance(end, len(names))
    return {name: found[name] for name in names if name in found}, {
        name: unreadable[name] for name in names if name in unreadable
    }


def reason(error: Exception, path: Path) -> str:
    """What is wrong with the file at `path`, without its name, in one line."""
    said = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    return " ".join(said.replace(f" {str(path)!r}", "").split()) or type(error).__name__


def none_readable(where: str | Path, unreadable: dict[str, str]) -> str:
    """What to tell when not one of the pictures of `where` can be read."""
    name, why = next(iter(unreadable.items()))
    return f"none of the {len(unreadable):,} pictures of {where} can be read: {name}: {why}"


def few(problems: Sequence[str]) -> str:
    """The first three of some problems, and how many more there are."""
    more = f"; and {len(problems) - 3:,} more" if len(problems) > 3 else ""
    return "; ".join(map(shown, problems[:3])) + more
