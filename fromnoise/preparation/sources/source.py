"""What every source of pictures gives."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Portion = dict[str, Any]
"""What one shard is made of, in plain JSON."""


class Picture(NamedTuple):
    """An entry of a source."""

    key: str
    """Unique within the source: the file's relative name, "files.parquet:17", "shard.tar/0001.jpg"."""
    content: bytes
    """The picture's file, undecoded."""
    captions: tuple[str, ...]
    """Stripped, none blank; empty where nothing is said."""
    label: int = 0
    """Class; 0 where the source has none."""


class Fault(NamedTuple):
    """An entry that cannot be used."""

    key: str
    reason: str


class Source(ABC):
    """Pictures in portions that are known before any is read. The same source gives the same portions and keys.

    about: one line on how much there is, and where it is said.
    parts: what decides the entries, by name ("metadata.jsonl", "pictures"), to a sha256 each.
    entries: how many there are; None where a stream does not tell.
    portions: what one shard is made of, each.
    classes: how many; 1 where there are none.
    class_names: of them, in the order of their numbers; none where they came as numbers.
    """

    about: str
    parts: dict[str, str]
    entries: int | None
    portions: Sequence[Portion]
    classes: int = 1
    class_names: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """sha256 (hex) over all that decides the entries."""
        return hashed([json.dumps(self.parts, sort_keys=True)])

    @abstractmethod
    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """The entries of a portion, in order.

        Raises:
            ValueError: one line naming the file that changed since it was listed, or that is damaged.
        """


def hashed(texts: Iterable[str]) -> str:
    """sha256 (hex) over texts, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def ranges(entries: int, size: int, **fixed: object) -> list[Portion]:
    """Portions of `size` entries each, the last with what is left: {"first": ..., "count": ...} and what is `fixed`."""
    return [{**fixed, "first": at, "count": min(size, entries - at)} for at in range(0, entries, size)]
