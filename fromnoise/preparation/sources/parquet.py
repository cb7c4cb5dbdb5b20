"""Pictures held in parquet files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.preparation.sources.cells import Classes, NoClass, captions_of, class_in, label_of
from fromnoise.preparation.sources.columns import find_columns, without_classes
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.files import refuse_changed, stamp
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source, hashed, ranges

if TYPE_CHECKING:
    from pyarrow import Array
    from pyarrow.parquet import ParquetFile

BATCH = 32  # rows decoded at once


class ParquetSource(Source):
    """Rows in order, of one file after another. Nothing of them is held in memory; of each file, how many rows.

    A portion that begins inside a row group reads past the rows before it there.
    """

    def __init__(self, root: Path, files: Sequence[Path], options: SourceOptions):
        """`files` are below `root`, in order.

        Raises:
            ValueError: one line: pyarrow is not installed, a file that is damaged or lacks the columns of the first,
                no such columns, no rows, a negative class.
        """
        self.root, self.files = root, list(files)
        self.stamps = [stamp(path) for path in self.files]
        with _reading(self.files[0]) as first:
            self.columns = find_columns(first.schema_arrow.names, options, str(self.files[0]))
        labels, counts, ignored = Classes(), [], ""
        for path in self.files:
            with _reading(path) as file:
                if missing := [name for name in self.wanted if name not in file.schema_arrow.names]:
                    raise ValueError(f"{path} has no column {missing[0]!r}, as {self.files[0].name} has")
                counts.append(file.metadata.num_rows)
                try:
                    for label in self._labels(file):
                        labels.number(label)
                except NoClass as error:
                    self.columns = without_classes(self.columns, options, str(path), error)
                    labels, ignored = Classes(), f"; no classes: {error}"
        self.ends = list(accumulate(counts))  # rows of the files up to each
        self.known, self.classes, self.class_names = labels.table(str(root)), labels.count, labels.names
        self.entries = self.ends[-1]
        if not self.entries:
            raise ValueError(f"{root} holds no rows in {len(self.files):,} parquet files")
        self.portions = ranges(self.entries, options.shard)
        marks = zip(self.files, self.stamps, strict=True)
        listing = hashed(f"{path.relative_to(root).as_posix()}\0{size}\0{modified}" for path, (size, modified) in marks)
        self.parts = {"columns": hashed([repr(self.columns)]), "files": listing}
        self.about = f"{self.entries:,} pictures in {len(self.files):,} parquet files, {self.columns}{ignored}"

    @property
    def wanted(self) -> list[str]:
        """The columns that are read."""
        names = (self.columns.picture, *self.columns.captions, self.columns.label)
        return list(dict.fromkeys(name for name in names if name))

    def _labels(self, file: ParquetFile) -> Iterator[str]:
        """The labels that there are in a file, most of them several times; errors as in `label_of`."""
        if self.columns.label:
            for batch in file.iter_batches(columns=[self.columns.label], use_threads=False):
                for value in _distinct(batch.column(0)):
                    yield label_of({self.columns.label: value}, self.columns)

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its rows; errors as in `Source`."""
        at, end = portion["first"], portion["first"] + portion["count"]
        while at < end:
            place = bisect_right(self.ends, at)
            start = self.ends[place - 1] if place else 0
            last = min(end, self.ends[place])
            yield from self._rows(place, at - start, last - start)
            at = last

    def _rows(self, place: int, first: int, end: int) -> Iterator[Picture | Fault]:
        """Rows `first` to `end` of a file."""
        path = self.files[place]
        refuse_changed(path, self.stamps[place], stamp(path))
        name = path.relative_to(self.root).as_posix()
        with _reading(path) as file:
            groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            ends = list(accumulate(groups))
            chosen = [i for i, last in enumerate(ends) if first < last and end > last - groups[i]]
            row = ends[chosen[0]] - groups[chosen[0]]
            batches = file.iter_batches(BATCH, row_groups=chosen, columns=self.wanted, use_threads=False)
            for batch in batches:
                if row + len(batch) > first:
                    for number, cells in enumerate(batch.to_pylist(), start=row):
                        if first <= number < end:
                            yield self._entry(f"{name}:{number}", cells)
                row += len(batch)
                if row >= end:
                    break

    def _entry(self, key: str, cells: dict[str, Any]) -> Picture | Fault:
        found = cells[self.columns.picture]
        content = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(content, bytes):
            return Fault(key, f"no picture in column {self.columns.picture!r}, but {repr(found)[:60]}")
        try:
            captions, label = captions_of(cells, self.columns), class_in(self.known, label_of(cells, self.columns))
        except ValueError as error:
            return Fault(key, str(error))
        return Picture(key, content, captions, label)


def _distinct(column: Array) -> list[Any]:
    from pyarrow import ArrowNotImplementedError

    try:
        return column.unique().to_pylist()
    except ArrowNotImplementedError:  # of lists, structs and the like
        return column.to_pylist()


@contextmanager
def _reading(path: Path) -> Iterator[ParquetFile]:
    """The open file; what goes wrong with it is told in one line."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError("parquet files need pyarrow: pip install 'fromnoise[parquet]'") from None
    try:
        # Streamed page by page: without these two, the column of a row group is held, and a copy of it.
        with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            yield file
    except (OSError, ArrowException) as error:
        raise ValueError(f"{path} is damaged, cut short or no parquet file: {' '.join(str(error).split())}") from None
