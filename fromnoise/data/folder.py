"""A directory of captioned pictures. Legend: B batch, N pictures, S side, H height, W width."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from fromnoise.core.types import Batch, PictureCounts
from fromnoise.data.buckets import Size
from fromnoise.data.config import FolderConfig
from fromnoise.data.epochs import Epochs
from fromnoise.data.listing import identity, list_pictures
from fromnoise.data.pictures import read_picture
from fromnoise.data.reading import few, none_readable, read_all
from fromnoise.data.report import paced, to_stderr
from fromnoise.data.split import FEW, chance, split

SIDED = re.compile(r"(?<![a-z])(?:left|right)|clockwise", re.IGNORECASE)  # true of a picture, false of its mirror image


class FolderData:
    """Captioned pictures of a directory, decoded once and held in memory: 3 S^2 bytes a picture.

    Batch k is a pure function of (seed, k, batch size). Every pass over the pictures is a fresh permutation that shows
    each of them once, with one of its captions. About one picture in twenty, chosen by a hash of its file name, is kept
    for validation.

    problems: one line for each picture left out, because it cannot be read or has no caption.
    """

    def __init__(self, config: FolderConfig, seed: int, report: Callable[[str], None] = to_stderr):
        """Read the directory; `report` is told what is read, left out and held, one line at a time.

        Raises:
            ValueError: one line: no such directory, nothing in it that can be read, no captions, captions that are not
                text, more pictures than memory holds.
        """
        self.config, self.seed = config, seed
        self.image_shape = (3, config.size, config.size)
        self.sizes = [self.image_shape[1:]]
        self.classes = 1
        listing = list_pictures(config.path)
        self.sha256 = identity(config.path, listing.captions)
        square, names = Size(config.size, config.size), list(listing.captions)
        self.pictures, unreadable = decode(config.path, names, square, config.background, report)  # (N, 3, S, S) uint8
        if len(unreadable) == len(names):
            raise ValueError(none_readable(config.path, unreadable))
        self.problems = [*(f"{name}: {reason}" for name, reason in unreadable.items()), *listing.problems]
        self.names = [name for name in listing.captions if name not in unreadable]
        self.said = [listing.captions[name] for name in self.names]
        learned, held_out = split(np.array([chance(name) for name in self.names]))
        self.learned, self.held_out = learned.tolist(), held_out.tolist()
        self.mirrors = np.array([config.flip and not any(map(SIDED.search, said)) for said in self.said])  # (N,)
        self.epochs = Epochs(len(self.learned), seed)
        for line in self._summary(listing.source):
            report(line)

    def _summary(self, source: str) -> list[str]:
        count, captions, size = len(self.names), sum(map(len, self.said)), self.config.size
        lines = [
            f"{count:,} pictures at {size} px, {captions:,} captions from {source}, {self.pictures.nbytes / 2**20:,.1f}"
            f" MiB in memory; {len(self.learned):,} to train on, {len(self.held_out):,} to validate"
        ]
        if len(self.learned) == count:
            lines.append(f"fewer than {FEW} pictures: none is held out, validation looks at those trained on")
        if self.problems:
            lines.append(f"{len(self.problems):,} pictures left out: {few(self.problems)}")
        return lines

    @property
    def counts(self) -> PictureCounts:
        """How many pictures there are; of very few, all are trained on and none is held out."""
        return PictureCounts(len(self.learned), len(self.names) - len(self.learned), bool(self.mirrors.any()))

    def train(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The pictures and captions of optimizer step `step`, counted from 0: `size` in all, of which process `rank` of
        `ranks` gets its part, in order."""
        draws = self.epochs.batch(step, size).part(rank, ranks)
        rows = [self.learned[at] for at in draws.order]
        picks = [int(chance * len(self.said[row])) for chance, row in zip(draws.caption, rows, strict=True)]
        batch = self._batch(rows, picks)
        flips = torch.from_numpy(draws.mirror & self.mirrors[rows])  # (B,) bool
        batch.images[flips] = batch.images[flips].flip(-1)
        return batch

    def validation(self, size: int) -> Batch:
        """Fixed pictures, the same for every seed, none of them trained on unless there are very few.

        Where `size` is more than there are, they come again, with their next captions.
        """
        again, at = zip(*(divmod(i, len(self.held_out)) for i in range(size)), strict=True)
        rows = [self.held_out[i] for i in at]
        return self._batch(rows, [turn % len(self.said[row]) for turn, row in zip(again, rows, strict=True)])

    def captions(self, count: int) -> list[str]:
        """Captions of the training pictures to learn a vocabulary from: all, or a fixed draw of `count` of them."""
        said = [caption for row in self.learned for caption in self.said[row]]
        if len(said) <= count:
            return said
        return [said[i] for i in np.random.default_rng(0).choice(len(said), count, replace=False)]

    def _batch(self, rows: Sequence[int], picks: Sequence[int]) -> Batch:
        images = torch.from_numpy(self.pictures[list(rows)]).float() / 127.5 - 1  # (B, 3, S, S)
        captions = [self.said[row][pick] for row, pick in zip(rows, picks, strict=True)]
        return Batch(images, captions, torch.zeros(len(rows), dtype=torch.int64))


def decode(
    folder: Path, names: list[str], size: Size, background: int, report: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, str]]:
    """Read pictures by a few threads: (N, 3, H, W) uint8 of those that can be read, and why the others cannot.

    Raises:
        ValueError: when memory does not hold them.
    """
    shape = (len(names), 3, *size)
    gib = np.prod(shape, dtype=float) / 2**30
    try:
        pictures = np.empty(shape, np.uint8)  # (N, 3, H, W)
    except MemoryError:
        asked = size.height if size.height == size.width else size
        need = f"{len(names):,} pictures at size {asked} need {gib:,.1f} GiB of memory"
        raise ValueError(f"{need}, more than there is: choose a smaller size") from None

    def read(place: int) -> None:
        pictures[place] = read_picture(folder / names[place], size, background)

    _, unreadable = read_all(folder, names, read, paced(report, "pictures read"))
    readable = [place for place, name in enumerate(names) if name not in unreadable]
    for new, old in enumerate(readable):  # row by row: a copy of the whole could be more than memory holds
        pictures[new] = pictures[old]
    return pictures[: len(readable)], unreadable
