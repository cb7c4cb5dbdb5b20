"""Pictures of a directory, with what is said of each in a .txt beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fromnoise.data.listing import texts_beside
from fromnoise.data.texts import not_utf8, shown
from fromnoise.preparation.sources.cells import cleaned
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.files import ABSENT, Files
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source, ranges


class FolderSource(Source):
    """Pictures in the order of their names; each line of the .txt beside one is a caption of it.

    Held in memory: of each picture its name and four numbers.
    """

    def __init__(self, folder: Path, names: Sequence[str], options: SourceOptions):
        """`names` are the pictures, relative to the directory."""
        self.pictures = Files(folder, names)
        self.texts = Files(folder, texts_beside(folder, names))
        self.entries = len(names)
        self.portions = ranges(self.entries, options.shard)
        self.parts = {"captions": self.texts.sha256(), "pictures": self.pictures.sha256()}
        said = sum(size != ABSENT.size for size in self.texts.sizes)
        self.about = f"{self.entries:,} pictures, {said:,} of them with captions in .txt files"

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its pictures; errors as in `Source`."""
        for place in range(portion["first"], portion["first"] + portion["count"]):
            key = shown(self.pictures.names[place])
            content, text = self.pictures.read(place), self.texts.read(place)
            if isinstance(content, str):
                yield Fault(key, content)
                continue
            if isinstance(text, str) and self.texts.sizes[place] != ABSENT.size:
                yield Fault(key, f"{shown(self.texts.names[place])} cannot be read: {text}")
                continue
            try:
                said = text.decode("utf-8-sig").splitlines() if isinstance(text, bytes) else []
            except UnicodeDecodeError as error:
                yield Fault(key, f"{shown(self.texts.names[place])} {not_utf8(error)}")
                continue
            yield Picture(key, content, cleaned(said))
