"""Which kind of source is meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from fromnoise.core.config import hint
from fromnoise.data.listing import files_below, find_table, list_files, no_pictures
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.folder import FolderSource
from fromnoise.preparation.sources.parquet import ParquetSource
from fromnoise.preparation.sources.rows import READERS
from fromnoise.preparation.sources.source import Source
from fromnoise.preparation.sources.table import TableSource
from fromnoise.preparation.sources.tar import TarSource

HELD: dict[str, Callable[[Path, list[Path], SourceOptions], Source]] = {".parquet": ParquetSource, ".tar": TarSource}
"""Files that hold pictures themselves."""


def _published(name: str) -> Callable[[str, SourceOptions], Source]:
    def source(rest: str, options: SourceOptions) -> Source:
        from fromnoise.preparation.sources.builtin import PublishedSource

        if rest:
            raise ValueError(f"{name}:{rest} is no source; allowed: {name}")
        return PublishedSource(name, options)

    return source


def _shapes(rest: str, options: SourceOptions) -> Source:
    from fromnoise.preparation.sources.builtin import ShapesSource

    if not rest.isdecimal() or not int(rest):
        raise ValueError(f"shapes:{rest} is no source; allowed: shapes:COUNT, as shapes:20000")
    return ShapesSource(int(rest), options)


def _hub(rest: str, options: SourceOptions) -> Source:
    from fromnoise.preparation.sources.hub import HubSource

    return HubSource(rest, options)


NAMED: dict[str, Callable[[str, SourceOptions], Source]] = {
    "cifar10": _published("cifar10"),
    "hub": _hub,
    "mnist": _published("mnist"),
    "shapes": _shapes,
}
"""Sources that are no files here, by what stands before the colon."""


def open_source(where: str, options: SourceOptions) -> Source:
    """The source that `where` names.

    A directory of pictures, of parquet files or of tars; a .csv, .tsv or .jsonl table, a .parquet or .tar file, or
    several by a pattern: "data/{000..127}.tar"; "hub:owner/name"; "mnist", "cifar10" or "shapes:COUNT". A directory of
    such a name is told apart by a slash: "./mnist".

    Raises:
        ValueError: one line: nothing there, of no known kind, or what the kind of source raises.
    """
    name, _, rest = where.partition(":")
    if name in NAMED:
        return NAMED[name](rest, options)
    path = Path(where)
    if path.is_dir():
        return _directory(path, options)
    files = [Path(name) for name in dict.fromkeys(expanded(where))]
    for file in files:
        if not file.is_file():
            named = hint(where, ["mnist", "cifar10", "shapes:COUNT", "hub:OWNER/NAME"])
            raise ValueError(f"no source at {file}: neither a file nor a directory; by name, {named}")
    kinds = sorted({file.suffix.lower() for file in files})
    if kinds[0] in HELD and len(kinds) == 1:
        root = Path(os.path.commonpath([file.parent for file in files]))
        return HELD[kinds[0]](root, files, options)
    if kinds[0] in READERS and len(files) == 1:
        return TableSource(path, options)
    raise ValueError(f"{where} is no source; {hint(kinds[0], ['a directory', *READERS, *HELD])}")


def _directory(folder: Path, options: SourceOptions) -> Source:
    held: dict[str, list[Path]] = {}
    for path in sorted(files_below(folder)):
        if (suffix := path.suffix.lower()) in HELD:
            held.setdefault(suffix, []).append(path)
    names = list_files(folder)
    table = find_table(folder)
    found = {**{suffix: len(files) for suffix, files in held.items()}, **({"pictures": len(names)} if names else {})}
    if len(found) > 1:
        told = ", ".join(f"{count:,} {kind}" for kind, count in found.items())
        raise ValueError(f"{folder} holds {told}: name one kind, as {folder}/*{next(iter(held.values()))[0].suffix}")
    if held:
        ((suffix, files),) = held.items()
        return HELD[suffix](folder, files, options)
    if table:
        return TableSource(table, options, names)
    if not names:
        raise ValueError(no_pictures(folder))
    return FolderSource(folder, names, options)


def expanded(pattern: str) -> list[str]:
    """Names in the order of a pattern: "{a,b}" and "{08..12}" as a shell reads them, "*" and "?" as well."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces:
        if span := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
            first, last = span.groups()
            words = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        else:
            words = braces[1].split(",")
        before, after = pattern[: braces.start()], pattern[braces.end() :]
        return [name for word in words for name in expanded(before + word + after)]
    if "*" in pattern or "?" in pattern:
        top = Path(Path(pattern).anchor)
        return sorted(map(str, top.glob(str(Path(pattern).relative_to(top))))) or [pattern]
    return [pattern]
