"""Data sets of the Hugging Face hub, streamed: nothing is downloaded but what is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fromnoise.preparation.sources.cells import UNCLASSED, captions_of, label_of
from fromnoise.preparation.sources.columns import find_columns
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source, hashed

if TYPE_CHECKING:
    from datasets import IterableDataset


class HubSource(Source):
    """Entries in the order of the data set's files; those of parquet files by row groups.

    A file (or row group) is read from its start, so a portion skips what it does not want of it, but nothing of the
    files before. Portions asked for in order go on where the one before ended, and skip nothing. How many entries each
    file has is not known: files are taken to be equally long, and the last portion of a file takes what is left of it.
    """

    def __init__(self, name: str, options: SourceOptions):
        """`name` is as on the hub, "owner/name", or a directory with the same files.

        Raises:
            ValueError: one line: `datasets` is not installed, no such data set, no such split or columns, or nothing
                tells how many entries there are.
        """
        try:
            from datasets import ClassLabel, IterableDataset, load_dataset_builder
            from datasets.data_files import DataFilesList
        except ImportError:
            raise ValueError("data sets of the hub need datasets: pip install 'fromnoise[hub]'") from None
        self.where = f"hub:{name}"
        try:
            builder = load_dataset_builder(name, revision=options.revision)
            files = (builder.config.data_files or {}).get(options.split)
            if not files:
                there = ", ".join(map(str, builder.config.data_files or {})) or "none"
                raise ValueError(f"no split {options.split!r}; allowed: {there}")
            stream = builder.as_streaming_dataset(options.split)
            assert isinstance(stream, IterableDataset) and isinstance(files, DataFilesList)
            stream = stream.decode(False).reshard()
            first = next(iter(stream.take(1)), None)
        except Exception as error:  # from no such name to no network, of several libraries
            raise ValueError(f"cannot read {self.where}: {' '.join(str(error).split())}") from None
        if first is None:
            raise ValueError(f"{self.where} holds no entries in {options.split}")
        self.columns = find_columns(list(first), options, self.where)
        kind = (stream.features or {}).get(self.columns.label)
        if isinstance(kind, ClassLabel):
            self.classes, self.class_names = len(kind.names), tuple(kind.names)
        elif options.label_column:
            raise ValueError(
                f"{self.where} does not tell the classes of {options.label_column!r}; allowed: a ClassLabel"
            )
        else:
            self.columns = self.columns._replace(label=None)
        wanted = (self.columns.picture, *self.columns.captions, self.columns.label)
        self.stream = stream.select_columns(list(dict.fromkeys(name for name in wanted if name)))
        told = (builder.info.splits or {}).get(options.split)
        self.entries = told.num_examples if told and told.num_examples else None
        about = self.entries or options.entries
        if not about:
            raise ValueError(f"{self.where} does not tell how many entries it has; say about how many by entries")
        self.portions = _portions(stream.num_shards, about, options.shard)
        marks = zip(files, files.origin_metadata, strict=True)  # commits on the hub, times of files here
        self.parts = {"columns": hashed([repr(self.columns)]), "files": hashed(map(repr, marks))}
        count = f"{self.entries:,}" if self.entries else f"about {about:,}"
        self.about = f"{count} pictures of {name} in {len(files):,} files, {self.columns}"
        self.live: tuple[int, int, Iterator[dict[str, Any]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "live": None}  # a stream that is being read stays in its process

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its entries, fewer than `count` where a file ends; errors as in `Source`, and where a file cannot be had."""
        for piece in range(portion["piece"], portion["piece"] + portion["pieces"]):
            at, end = portion["first"], portion["end"]
            rows = self._from(piece, at)
            while end is None or at < end:
                try:
                    cells = next(rows, None)
                except Exception as error:  # of the network, or of any of the formats
                    raise ValueError(f"cannot read piece {piece} of {self.where}: {error}") from None
                if cells is None:
                    break
                yield self._entry(f"{self.where}:{piece}:{at}", cells)
                at += 1
            self.live = (piece, at, rows)

    def _from(self, piece: int, first: int) -> Iterator[dict[str, Any]]:
        live, self.live = self.live, None
        if live and live[:2] == (piece, first):
            return live[2]
        stream: IterableDataset = self.stream.shard(self.stream.num_shards, piece)
        return iter(stream.skip(first))

    def _entry(self, key: str, cells: dict[str, Any]) -> Picture | Fault:
        try:
            content = _content(cells[self.columns.picture])
            captions, label = captions_of(cells, self.columns), label_of(cells, self.columns)
            if self.columns.label and not label:
                raise ValueError(UNCLASSED)
            if label.startswith("-"):
                raise ValueError(f"class {label}; allowed: 0 to {self.classes - 1}")
        except (FileNotFoundError, ValueError) as error:
            return Fault(key, " ".join(str(error).split()))
        except Exception as error:  # of the network: the picture is there, and is had when the same is called again
            raise ValueError(f"cannot read {key}: {' '.join(str(error).split()) or type(error).__name__}") from None
        return Picture(key, content, captions, int(label or 0))


def _portions(pieces: int, entries: int, size: int) -> list[Portion]:
    """Portions of about `size` of `entries` in `pieces` of the stream: several pieces each, or parts of one."""
    each = entries / pieces
    together = max(1, round(size / each))
    parts = max(1, round(each / size))
    return [
        {
            "piece": piece,
            "pieces": min(together, pieces - piece),
            "first": part * size,
            "end": (part + 1) * size if part < parts - 1 else None,
        }
        for piece in range(0, pieces, together)
        for part in range(parts)
    ]


def _content(cell: object) -> bytes:
    if isinstance(cell, dict) and isinstance(cell.get("path"), str) and cell.get("bytes") is None:
        import fsspec

        with fsspec.open(cell["path"], "rb") as file:
            return file.read()  # type: ignore[union-attr]  # one file, as one path was given
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise ValueError(f"no picture, but {repr(content)[:60]}")
    return content
