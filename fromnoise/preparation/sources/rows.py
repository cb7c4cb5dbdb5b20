"""Rows of a table of text, each at a byte of the file, so that one can be read without those before it."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from fromnoise.data.listing import refuse_twins
from fromnoise.data.texts import not_utf8


class Row(NamedTuple):
    """A row of a table."""

    offset: int
    """Its first byte."""
    line: int
    """Its last line, counted from 1 where reading began."""
    cells: dict[str, Any]
    """By name of their columns; empty where the row cannot be used."""
    fault: str = ""
    """Why it cannot be used."""


class Rows(Protocol):
    """How one kind of file is read."""

    columns: list[str]

    def scan(self, file: IO[bytes], offset: int = 0) -> Iterator[Row]:
        """The rows from a byte on: 0 or the offset of a row. Blank lines are none."""
        ...


class Lines:
    """JSON, an object in each line; columns are the keys of all of them."""

    def __init__(self, path: Path):
        """Raises:
        ValueError: one line, when not one line of the file can be used.
        """
        with open(path, "rb") as file:
            self.columns = list(dict.fromkeys(name for row in self.scan(file) for name in row.cells))
            first = next(self.scan(file), None)
        if not self.columns:
            raise ValueError(f"{path} line {first.line}: {first.fault}" if first else f"{path} is empty")

    def scan(self, file: IO[bytes], offset: int = 0) -> Iterator[Row]:
        """As in `Rows`."""
        file.seek(offset)
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object(offset, number, line)
            offset += len(line)


def _object(offset: int, number: int, line: bytes) -> Row:
    try:
        cells = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Row(offset, number, {}, f"not JSON ({error})")
    if not isinstance(cells, dict) or not cells:
        return Row(offset, number, {}, f"must be an object with a picture and its captions, not {repr(cells)[:60]}")
    return Row(offset, number, cells)


class Sheet:
    """Cells between commas or tabs; columns are named in the first line."""

    def __init__(self, path: Path, delimiter: str):
        """Raises:
        ValueError: one line: the file is empty, its header is no UTF-8, or two columns have one name.
        """
        self.path, self.delimiter = path, delimiter
        with open(path, "rb") as file:
            _, _, self.columns, self.start = next(self._cells(file, 0), (0, 0, [], 0))
            file.seek(0)
            header = file.read(self.start)
        try:
            header.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} {not_utf8(error)}") from None
        if not self.columns:
            raise ValueError(f"{path} is empty")
        refuse_twins(self.columns, path)

    def scan(self, file: IO[bytes], offset: int = 0) -> Iterator[Row]:
        """As in `Rows`.

        Raises:
            ValueError: one line, where rows can no longer be told apart.
        """
        for start, line, cells, _ in self._cells(file, offset or self.start):
            if len(cells) != len(self.columns):
                count = f"{len(cells)} cells under a header of {len(self.columns)}"
                yield Row(start, line + 1, {}, f"{count}: quote a caption with commas")
            elif not _is_text("".join(cells)):
                yield Row(start, line + 1, {}, "not UTF-8 text")
            else:
                yield Row(start, line + 1, dict(zip(self.columns, cells, strict=True)))

    def _cells(self, file: IO[bytes], offset: int) -> Iterator[tuple[int, int, list[str], int]]:
        """First byte, last line and cells of each row, and the byte after it."""
        file.seek(offset)
        start = at = offset

        def lines() -> Iterator[str]:
            nonlocal at
            for line in file:
                text = line.removeprefix(codecs.BOM_UTF8) if at == 0 else line
                at += len(line)
                yield text.decode("utf-8", "surrogateescape")

        reader = csv.reader(lines(), delimiter=self.delimiter)
        try:
            for cells in reader:
                if cells:
                    yield start, reader.line_num, cells, at
                start = at
        except csv.Error as error:
            line = reader.line_num + (1 if offset else 0)
            raise ValueError(f"{self.path} line {line}: not CSV ({error})") from None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that were no UTF-8 became surrogates
        return False
    return True


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": Lines,
    ".csv": lambda path: Sheet(path, ","),
    ".tsv": lambda path: Sheet(path, "\t"),
}
"""The kinds of tables, by the ends of their names."""
