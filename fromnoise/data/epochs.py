"""The order of training pictures: endless, seeded, and with no state, so that any step can be asked for at any time."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Draws(NamedTuple):
    """Pictures in the order in which training sees them, and the chances that come with each."""

    order: np.ndarray  # (N,) places in the list of training pictures
    caption: np.ndarray  # (N,) in [0, 1): which of its captions each picture gets
    mirror: np.ndarray  # (N,) bool


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
