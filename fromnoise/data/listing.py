"""Which pictures a directory holds, and what their captions say: from a table, or from a .txt beside each picture."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fromnoise.data.pictures import SUFFIXES
from fromnoise.data.reading import few
from fromnoise.data.texts import cleaned, not_utf8

TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")
PICTURE_COLUMNS = ("file_name", "filename", "file", "image", "path", "image_path", "file_path")
CAPTION_COLUMNS = ("captions", "caption", "text", "texts", "prompt")


class Listing(NamedTuple):
    """What a directory says it holds."""

    captions: dict[str, tuple[str, ...]]
    """Name of each picture file, relative to the directory and sorted, to its captions: one or more, none blank."""
    problems: list[str]
    """One line for each picture that has no caption, or none that can be read."""
    source: str
    """Where the captions come from."""


def list_pictures(folder: Path) -> Listing:
    """The captioned pictures of a directory.

    Captions come from the first of metadata.jsonl (the hub's image folder), metadata.csv, captions.csv, the only CSV
    there is, and else from a .txt beside each picture (one caption a line). Rows about one file are put together.

    Raises:
        ValueError: one line that names the file and the row: no such directory, no pictures, no captions, captions
            that are not text.
    """
    files = list_files(folder)
    table = find_table(folder)
    found: dict[str, list[str]] = {}
    unreadable: dict[str, str] = {}
    for name, captions in _rows(table) if table else _beside(folder, files, unreadable):
        found.setdefault(name, []).extend(filter(None, map(cleaned, captions)))
    if not found and not files:
        raise ValueError(no_pictures(folder))
    captions = {name: tuple(found[name]) for name in sorted(found) if found[name]}
    source = table.name if table else ".txt files"
    problems = [f"{name}: {why}" for name, why in unreadable.items()]
    if not captions and problems:
        raise ValueError(f"none of the captions of {folder} can be read: {few(problems)}")
    if not captions:
        wanted = f"{', '.join(TABLES)}, or a .txt beside each picture"
        raise ValueError(f"data folder {folder} holds {len(files)} pictures and no captions (looked for {wanted})")
    bare = sorted(set(found).union(files).difference(captions, unreadable))
    return Listing(captions, [*problems, *(f"{name}: no caption in {source}" for name in bare)], source)


def identity(folder: Path, captions: Mapping[str, tuple[str, ...]]) -> str:
    """sha256 (hex) over the names of pictures, the bytes of each file (-1 where there is none) and its captions, in
    order."""
    digest = hashlib.sha256()
    for name, said in captions.items():
        path = folder / name
        digest.update(json.dumps([name, path.stat().st_size if path.is_file() else -1, said]).encode())
    return digest.hexdigest()


def list_files(folder: Path) -> list[str]:
    """Names of the picture files in a directory and below it, relative to it and sorted, captioned or not.

    Raises:
        ValueError: one line, when there is no such directory.
    """
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} {'is not a directory' if folder.exists() else 'does not exist'}")
    below = files_below(folder)
    return sorted(path.relative_to(folder).as_posix() for path in below if path.suffix.lower() in SUFFIXES)


def texts_beside(folder: Path, names: Iterable[str]) -> list[str]:
    """The name of the .txt, or .TXT, beside each of these pictures, whether it is there or not."""
    texts = sorted(path for path in files_below(folder) if path.suffix.lower() == ".txt")
    there = {path.with_suffix(""): path.relative_to(folder).as_posix() for path in texts}  # of two, the small letters
    beside = ((folder / name).with_suffix("") for name in names)
    return [there.get(path, path.relative_to(folder).as_posix() + ".txt") for path in beside]


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a directory and below it, also behind links to directories, in no order; none that is hidden.

    A directory is entered once, by a link only where no other way leads there, so that links may go round in a circle.
    """
    tops, entered = deque([folder]), set[str]()
    while tops:
        for place, folders, files in os.walk(tops.popleft()):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            tops.extend(path for name in folders if (path := Path(place, name)).is_symlink())
            yield from (Path(place, name) for name in files if not name.startswith("."))


def no_pictures(folder: Path) -> str:
    """What to tell of a directory without pictures."""
    return f"data folder {folder} holds no pictures (looked for {', '.join(sorted(SUFFIXES))})"


def find_table(folder: Path) -> Path | None:
    """The table with a directory's captions: the first of `TABLES`, or the only CSV there is; in capitals, too."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".jsonl") and path.is_file())
    there = {path.name.lower(): path for path in tables if not path.name.startswith(".")}
    named = [there[name] for name in TABLES if name in there]  # of two, the one in small letters
    sheets = [path for name, path in there.items() if name.endswith(".csv")]
    if named:
        return named[0]
    return sheets[0] if len(sheets) == 1 else None


def _beside(folder: Path, files: list[str], unreadable: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Picture and captions of each .txt; `unreadable` is told why one cannot be read."""
    for name, text in zip(files, texts_beside(folder, files), strict=True):
        if (folder / text).is_file():
            try:
                captions = (folder / text).read_text(encoding="utf-8-sig").splitlines()
            except (UnicodeDecodeError, OSError) as error:
                unreadable[name] = f"{text} {_why(error)}"
            else:
                yield name, captions


def _rows(table: Path) -> Iterator[tuple[str, list[str]]]:
    """Picture and captions of each row of a JSON-lines or CSV table."""
    text = read_text(table)
    if not text.strip():
        raise ValueError(f"{table} is empty")
    for where, row in _sheet(table, text) if table.suffix.lower() == ".csv" else _lines(table, text):
        fields = {str(key).strip().lower(): value for key, value in row.items()}
        name = _field(fields, PICTURE_COLUMNS, "picture", where)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: the picture's name must be text, not {name!r}")
        said = _field(fields, CAPTION_COLUMNS, "caption", where)
        every: list[Any] = said if isinstance(said, list) else [said]
        captions = [caption for caption in every if caption is not None]
        for caption in captions:
            if not isinstance(caption, str):
                given = repr(caption)[:60]
                raise ValueError(f"{where}: the caption of {name} must be text or a list of texts, not {given}")
        yield Path(name).as_posix(), captions


def _field(fields: Mapping[str, object], columns: tuple[str, ...], what: str, where: str) -> object:
    """What stands in the first of these columns that holds anything."""
    found = [fields[column] for column in columns if column in fields]
    if not found:
        raise ValueError(f"{where}: no {what}: looked for {', '.join(columns)}, found {', '.join(fields) or 'nothing'}")
    return next((value for value in found if value is not None), None)


def _lines(table: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{table} line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be an object with a picture and its captions, not {repr(row)[:60]}")
        yield where, row


def _sheet(table: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        refuse_twins(reader.fieldnames or (), table)
        for row in reader:
            where = f"{table} line {reader.line_num}"
            if None in row:  # what is left of the row
                cells, header = len(row) - 1 + len(row[None]), len(reader.fieldnames or ())
                raise ValueError(f"{where}: {cells} cells under a header of {header}: quote a caption with commas")
            yield where, row
    except csv.Error as error:
        raise ValueError(f"{table} line {reader.line_num}: not CSV ({error})") from None


def refuse_twins(header: Sequence[str], table: Path) -> None:
    """Find that no two columns of a table have one name; capitals and spaces around them do not matter.

    Raises:
        ValueError: one line that names them.
    """
    counts = Counter(name.strip().lower() for name in header)
    if twin := next((name for name, count in counts.items() if name and count > 1), None):
        raise ValueError(f"{table}: {counts[twin]} columns are named {twin!r}; allowed: one of each name")


def read_text(path: Path) -> str:
    """The text in a file of UTF-8.

    Raises:
        ValueError: one line, when it is none, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} {_why(error)}") from None


def _why(error: UnicodeDecodeError | OSError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else not_utf8(error)
