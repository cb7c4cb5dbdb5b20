"""Pictures named in a CSV or JSON-lines table, relative to its place."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from fromnoise.data.texts import shown
from fromnoise.preparation.sources.cells import NONE, UNCLASSED, Classes, NoClass, captions_of, label_of
from fromnoise.preparation.sources.columns import Columns, find_columns, without_classes
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.files import Files, refuse_changed, stamp
from fromnoise.preparation.sources.rows import READERS, Row
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source, hashed, ranges


class TableSource(Source):
    """Pictures in the order in which a table first names them; rows about one picture are put together.

    Held in memory: of each picture its name and four numbers, of each row two. Captions are read again when they are
    wanted, each row at its place in the file. A row that cannot be used is a fault, and so is one that gives a picture
    another class than an earlier row; the picture keeps the first. A picture without a class is a fault where others
    have one. A column with a usual name for classes where more rows hold something else is ignored.
    """

    def __init__(self, table: Path, options: SourceOptions, others: Sequence[str] = ()):
        """`others` are pictures that should be in the table; those that are not become faults.

        Raises:
            ValueError: one line: no rows, no such columns, rows that cannot be told apart, a negative class, or
                something else in more rows of the column that was asked for.
        """
        self.table, self.listed = table, stamp(table)
        self.rows = READERS[table.suffix.lower()](table)
        self.columns, ignored = find_columns(self.rows.columns, options, str(table)), ""
        with open(table, "rb") as file:
            index = self._indexed(file)
            if index.odd and index.surplus > 0:
                self.columns = without_classes(self.columns, options, str(table), index.odd)
                ignored = f"; no classes: {index.odd}"
                index = self._indexed(file)
            file.seek(0)
            content = hashlib.file_digest(file, "sha256").hexdigest()
            refuse_changed(table, self.listed, stamp(file))
        if not index.places:
            raise ValueError(f"{table} has no rows")
        for name in others:
            index.miss(name, f"not in {table.name}")
        unclassed = index.leave_out_unclassed()
        self.faults, self.files = index.faults, Files(table.parent, list(index.places))
        self.labels, self.classes = index.classes.of(index.labels, str(table)), index.classes.count
        self.class_names = index.classes.names
        self.offsets, self.ends = index.grouped()
        self.entries = len(index.places)
        self.portions = ranges(self.entries, options.shard)
        self.parts = {table.name: content, "columns": hashed([repr(self.columns)]), "pictures": self.files.sha256()}
        self.about = (
            f"{self.entries - len(self.faults):,} pictures, {sum(index.captions):,} captions"
            f"{f', {self.classes:,} classes' if self.columns.label else ''} from {table.name}"
            f"{f'; of {bare:,} pictures nothing is said' if (bare := index.bare()) and self.columns.captions else ''}"
            f"{f'; {unclassed:,} pictures without a class are left out' if unclassed else ''}{ignored}"
        )

    def _indexed(self, file: IO[bytes]) -> _Index:
        index = _Index(self.table.name, self.columns)
        for row in self.rows.scan(file):
            index.add(row)
        return index

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its pictures, each with the captions of all its rows; errors as in `Source`."""
        with open(self.table, "rb") as file:
            refuse_changed(self.table, self.listed, stamp(file))
            for place in range(portion["first"], portion["first"] + portion["count"]):
                yield self._entry(place, file)

    def _entry(self, place: int, file: IO[bytes]) -> Picture | Fault:
        key = shown(self.files.names[place])
        if place in self.faults:
            return Fault(key, self.faults[place])
        content = self.files.read(place)
        if isinstance(content, str):
            return Fault(key, content)
        offsets = self.offsets[self.ends[place - 1] if place else 0 : self.ends[place]]
        rows = [next(self.rows.scan(file, int(offset))) for offset in offsets]
        captions = tuple(caption for row in rows for caption in captions_of(row.cells, self.columns))
        return Picture(key, content, captions, int(self.labels[place]))


class _Index:
    """What is kept of the rows of a table."""

    def __init__(self, table: str, columns: Columns):
        self.table, self.columns = table, columns
        self.places: dict[str, int] = {}  # of each picture, or row that cannot be used
        self.faults: dict[int, str] = {}
        self.classes = Classes()
        self.odd: NoClass | None = None  # the first of what stands where a class should
        self.surplus = 0  # rows with such, less those with a class
        self.labels = array("q")  # of each place
        self.offsets, self.owners = array("q"), array("q")  # of each row, its first byte and its picture's place
        self.captions = array("q")  # how many, of each place

    def add(self, row: Row) -> None:
        """Take in the next row."""
        try:
            if row.fault:
                raise ValueError(row.fault)
            name = _name(row.cells.get(self.columns.picture))
            captions, label = captions_of(row.cells, self.columns), label_of(row.cells, self.columns)
        except ValueError as error:
            self.miss(f"{self.table}:{row.line}", str(error))
            if isinstance(error, NoClass):
                self.odd = self.odd or error
                self.surplus += 1
            return
        self.surplus -= bool(label)
        number = self.classes.number(label)
        if name not in self.places:
            self.places[name] = len(self.places)
            self.labels.append(number)
            self.captions.append(0)
        place = self.places[name]
        if self.labels[place] == NONE:
            self.labels[place] = number
        if number not in (NONE, self.labels[place]):
            self.miss(f"{self.table}:{row.line}", f"another class for {shown(name)}, {label!r}; the first is kept")
            return
        self.offsets.append(row.offset)
        self.owners.append(place)
        self.captions[place] += len(captions)

    def miss(self, name: str, reason: str) -> None:
        """Take in what cannot be used, where it is not there yet."""
        if name not in self.places:
            self.faults[len(self.places)] = reason
            self.places[name] = len(self.places)
            self.labels.append(0)
            self.captions.append(0)

    def leave_out_unclassed(self) -> int:
        """Make faults of the pictures without a class, where others have one; how many they are."""
        if len(self.classes.known) == 1:
            return 0
        found = [place for place, number in enumerate(self.labels) if number == NONE and place not in self.faults]
        for place in found:
            self.faults[place], self.captions[place] = UNCLASSED, 0
        return len(found)

    def bare(self) -> int:
        """How many pictures have no caption."""
        return self.captions.count(0) - len(self.faults)

    def grouped(self) -> tuple[np.ndarray, np.ndarray]:
        """First bytes of all rows, those of one place after another; and where each place ends."""
        owners, offsets = (np.frombuffer(numbers, np.int64) for numbers in (self.owners, self.offsets))
        return offsets[np.argsort(owners, kind="stable")], np.bincount(owners, minlength=len(self.places)).cumsum()


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"the picture's name must be text, not {value!r:.60}")
    os.fsencode(value)  # a ValueError, where half a surrogate pair is in it
    return Path(value.strip()).as_posix()
