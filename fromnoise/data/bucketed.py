"""A directory of captioned pictures in their own shapes. Legend: B batch, N pictures, H height, W width, S side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fromnoise.core.types import Batch, PictureCounts
from fromnoise.data.buckets import Buckets, Size
from fromnoise.data.config import BucketsConfig
from fromnoise.data.epochs import BucketEpochs
from fromnoise.data.folder import SIDED, decode
from fromnoise.data.listing import identity, list_pictures
from fromnoise.data.reading import few, none_readable
from fromnoise.data.report import paced, to_stderr
from fromnoise.data.split import FEW, chance, split
from fromnoise.data.survey import survey


class BucketData:
    """Captioned pictures, each decoded once, in its bucket's size, and held in memory: 3 H W bytes a picture.

    A batch is of one bucket, and batch k is a pure function of (seed, k, batch size): see `BucketEpochs`. About one
    picture in twenty, chosen by a hash of its file name, is kept for validation, which is done in squares of
    `config.size`, as with `FolderData`: what a model draws unless it is told otherwise, and one size for all pictures.

    problems: one line for each picture left out: it cannot be read, is too small or has no caption.
    """

    def __init__(self, config: BucketsConfig, seed: int, report: Callable[[str], None] = to_stderr):
        """Read the directory; `report` is told what is read, left out and held, one line at a time.

        Raises:
            ValueError: one line: as `FolderData`; or buckets that cannot be; or all pictures are too small.
        """
        self.config, self.seed = config, seed
        buckets = Buckets(config.size, config.multiple, config.largest_aspect, config.tiers, config.upscale)
        self.image_shape = (3, config.size, config.size)
        self.classes = 1
        listing = list_pictures(config.path)
        self.sha256 = identity(config.path, listing.captions)
        found = survey(config.path, list(listing.captions), buckets, paced(report, "headers read"))

        held: dict[Size, np.ndarray] = {}  # (N of the bucket, 3, H, W) uint8
        unreadable: dict[str, str] = {}
        self.places: dict[str, tuple[Size, int]] = {}  # bucket and row of each picture
        for bucket in found.filled:
            names = list(bucket.pictures)
            held[bucket.size], faults = decode(config.path, names, bucket.size, config.background, report)
            unreadable |= faults
            readable = [name for name in names if name not in faults]
            self.places |= {name: (bucket.size, row) for row, name in enumerate(readable)}
        if not self.places:
            raise ValueError(none_readable(config.path, found.unreadable | unreadable))
        self.problems = [*found.problems, *(f"{name}: {why}" for name, why in unreadable.items()), *listing.problems]
        self.names = sorted(self.places)
        self.said = [listing.captions[name] for name in self.names]
        learned, held_out = split(np.array([chance(name) for name in self.names]))
        self.learned, self.held_out = learned.tolist(), held_out.tolist()
        self.mirrors = np.array([config.flip and not any(map(SIDED.search, said)) for said in self.said])  # (N,)

        self.pictures = held
        rows: dict[Size, list[int]] = {size: [] for size in held}
        for place in self.learned:
            rows[self.places[self.names[place]][0]].append(place)
        # Of each bucket that is trained on, its pictures' places in `names`.
        self.rows = {size: mine for size, mine in rows.items() if mine}
        self.sizes = list(self.rows)
        self.epochs = BucketEpochs([len(rows) for rows in self.rows.values()], seed)
        squares = [self.names[place] for place in self.held_out]
        square = Size(config.size, config.size)
        self.squares, _ = decode(config.path, squares, square, config.background, report)  # (N held out, 3, S, S)
        for line in self._summary(listing.source):
            report(line)

    def _summary(self, source: str) -> list[str]:
        count, captions = len(self.names), sum(map(len, self.said))
        mib = (sum(held.nbytes for held in self.pictures.values()) + self.squares.nbytes) / 2**20
        counts = ", ".join(f"{size} ({len(rows):,})" for size, rows in self.rows.items())
        lines = [
            f"{count:,} pictures, {captions:,} captions from {source}, {mib:,.1f} MiB in memory; {len(self.learned):,}"
            f" to train on, {len(self.held_out):,} to validate in squares of {self.config.size} px",
            f"{len(self.rows)} buckets (height x width, pictures to train on): {counts}",
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
        """The pictures and captions of optimizer step `step`, counted from 0, all of one bucket: `size` in all, of
        which process `rank` of `ranks` gets its part, in order."""
        bucket, draws = self.epochs.batch(step, size)
        draws = draws.part(rank, ranks)
        shape = self.sizes[bucket]
        places = [self.rows[shape][at] for at in draws.order]
        picks = [int(chance * len(self.said[place])) for chance, place in zip(draws.caption, places, strict=True)]
        rows = [self.places[self.names[place]][1] for place in places]
        batch = self._batch(self.pictures[shape][rows], places, picks)
        flips = torch.from_numpy(draws.mirror & self.mirrors[places])  # (B,) bool
        batch.images[flips] = batch.images[flips].flip(-1)
        return batch

    def validation(self, size: int) -> Batch:
        """Fixed squares, the same for every seed, of pictures none of which is trained on unless there are very few.

        Where `size` is more than there are, they come again, with their next captions.
        """
        turns, at = np.divmod(np.arange(size), len(self.held_out))  # (B,) each
        places = [self.held_out[i] for i in at]
        picks = [int(turn) % len(self.said[place]) for turn, place in zip(turns, places, strict=True)]
        return self._batch(self.squares[at], places, picks)

    def captions(self, count: int) -> list[str]:
        """Captions of the training pictures to learn a vocabulary from: all, or a fixed draw of `count` of them."""
        said = [caption for place in self.learned for caption in self.said[place]]
        if len(said) <= count:
            return said
        return [said[i] for i in np.random.default_rng(0).choice(len(said), count, replace=False)]

    def _batch(self, pictures: np.ndarray, places: Sequence[int], picks: Sequence[int]) -> Batch:
        """`pictures` (B, 3, H, W) uint8, at `places` (B,) in the names, each with the caption that was picked."""
        images = torch.from_numpy(pictures).float() / 127.5 - 1  # (B, 3, H, W)
        captions = [self.said[place][pick] for place, pick in zip(places, picks, strict=True)]
        return Batch(images, captions, torch.zeros(len(places), dtype=torch.int64))
