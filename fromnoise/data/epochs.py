"""The order of training pictures: endless, seeded, and with no state, so that any step can be asked for at any time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fromnoise.core.types import part_of


class Draws(NamedTuple):
    """Pictures in the order in which training sees them, and the chances that come with each."""

    order: np.ndarray  # (N,) places in the list of training pictures
    caption: np.ndarray  # (N,) in [0, 1): which of its captions each picture gets
    mirror: np.ndarray  # (N,) bool

    def part(self, rank: int, ranks: int) -> Draws:
        """Those of process `rank` of `ranks`."""
        mine = part_of(len(self.order), rank, ranks)
        return Draws(self.order[mine], self.caption[mine], self.mirror[mine])


class Epochs:
    """Passes over `count` pictures, each a fresh permutation that shows every picture once."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed
        self._epoch = lru_cache(maxsize=2)(
            self._draw
        )  # a batch spans two epochs at most, unless there are few pictures

    def batch(self, step: int, size: int) -> Draws:
        """The `size` draws of optimizer step `step`: a pure function of (count, seed, step, size)."""
        first, last = step * size, (step + 1) * size
        parts = []
        for epoch in range(first // self.count, (last - 1) // self.count + 1):
            begin = epoch * self.count
            within = slice(max(first - begin, 0), min(last - begin, self.count))
            parts.append([chances[within] for chances in self._epoch(epoch)])
        return Draws(*map(np.concatenate, zip(*parts, strict=True)))

    def _draw(self, epoch: int) -> Draws:
        rng = np.random.default_rng((self.seed, epoch))
        return Draws(rng.permutation(self.count), rng.random(self.count), rng.random(self.count) < 0.5)


class Turns:
    """Which of several buckets, of `counts` pictures, each step is of.

    A turn is as many steps as there are pictures, and each bucket gets as many of them as it has pictures, spread
    evenly and by chance: in a turn every picture is drawn as often as a batch has rows. 32 bytes a picture are held.
    """

    def __init__(self, counts: Sequence[int], seed: int):
        self.counts, self.seed = list(counts), seed
        self.seeds = [int(own) for own in np.random.SeedSequence(seed).generate_state(len(self.counts))]  # of each
        self._turn = lru_cache(maxsize=2)(self._draw)  # samples are made ahead, across the end of a turn

    def at(self, step: int) -> tuple[int, int]:
        """The bucket of optimizer step `step`, and how many batches of it came before."""
        if len(self.counts) == 1:
            return 0, step
        turn, place = divmod(step, sum(self.counts))
        buckets, ranks = self._turn(turn)
        bucket = int(buckets[place])
        return bucket, turn * self.counts[bucket] + int(ranks[place])

    def _draw(self, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """The bucket of each step of a turn, (N,), and how often it came in that turn before, (N,)."""
        rng = np.random.default_rng((self.seed, turn, 1))  # with the 1, another stream than that of `Epochs`
        ranks = np.concatenate([np.arange(count) for count in self.counts])  # (N,)
        counts = np.repeat(self.counts, self.counts)  # (N,) of the bucket that each belongs to
        order = np.argsort((ranks + rng.random(len(ranks))) / counts, kind="stable")  # (N,)
        return np.repeat(np.arange(len(self.counts)), self.counts)[order], ranks[order]


class BucketEpochs:
    """Batches of one bucket each, over buckets of `counts` pictures, in `Turns`.

    Within its bucket each picture is drawn once before any comes again: what does not fill a batch begins the bucket's
    next one, and where a bucket is smaller than a batch, its pictures come several times in one.
    """

    def __init__(self, counts: Sequence[int], seed: int):
        self.turns = Turns(counts, seed)
        self.within = [Epochs(count, own) for count, own in zip(counts, self.turns.seeds, strict=True)]

    def batch(self, step: int, size: int) -> tuple[int, Draws]:
        """The bucket of optimizer step `step`, and its `size` draws: a pure function of (counts, seed, step, size)."""
        bucket, turn = self.turns.at(step)
        return bucket, self.within[bucket].batch(turn, size)
