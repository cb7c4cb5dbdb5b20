"""Sizes of the pictures of any source, and a few of its pictures, for who wants to look before preparing it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from fromnoise.data.buckets import Size
from fromnoise.preparation.decode import measured
from fromnoise.preparation.sources.source import Fault, Picture, Source


def sizes_of(source: Source, advance: Callable[[int, int], None]) -> tuple[dict[str, Size], dict[str, str]]:
    """Height and width of each picture by its key, from headers alone, and why some cannot be read.

    `advance` is called after each portion with how many entries are read, and how many there are, as far as known.

    Raises:
        ValueError: as `Source.read`.
    """
    sizes, unreadable = dict[str, Size](), dict[str, str]()
    for entry in _entries(source, advance):
        if isinstance(entry, Fault):
            unreadable[entry.key] = entry.reason
            continue
        try:
            sizes[entry.key] = measured(entry.content)
        except ValueError as error:
            unreadable[entry.key] = str(error)
    return sizes, unreadable


def contents_of(source: Source, keys: Collection[str]) -> dict[str, bytes]:
    """The files of the pictures with these keys; errors as in `Source.read`."""
    entries = _entries(source, lambda done, total: None)
    return {one.key: one.content for one in entries if isinstance(one, Picture) and one.key in keys}


def _entries(source: Source, advance: Callable[[int, int], None]) -> Iterator[Picture | Fault]:
    done = 0
    for portion in source.portions:
        for entry in source.read(portion):
            yield entry
            done += 1
        advance(done, source.entries or done)
