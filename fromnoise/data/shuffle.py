"""An order of any number of samples that needs no memory: its only state is the step. Legend: B batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROUNDS = 8


class Places(NamedTuple):
    """Where in which pass each sample of a batch stands."""

    epoch: np.ndarray  # (B,) int64
    place: np.ndarray  # (B,) int64, below the number of samples


class Shuffle:
    """Endless passes over `count` samples, each a permutation of its own that shows every sample once.

    Unlike `Epochs`, which draws a whole permutation, it computes only the places that are asked for.
    """

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def batch(self, step: int, size: int) -> Places:
        """The `size` places of optimizer step `step`: a pure function of (count, seed, step, size)."""
        epoch, at = np.divmod(np.arange(step * size, (step + 1) * size), self.count)  # (B,) each
        place = np.empty_like(at)
        for one in np.unique(epoch):
            place[epoch == one] = permute(at[epoch == one], self.count, (self.seed % 2**64, int(one)))
        return Places(epoch, place)


def permute(at: np.ndarray, count: int, key: tuple[int, ...]) -> np.ndarray:
    """Where a permutation of 0 ... `count` - 1, chosen by `key`, sends each of `at` (B,) int64; (B,) int64.

    A Feistel network (Luby and Rackoff 1988) permutes the numbers of an even number of bits, up to 4 times as many as
    asked for; what falls outside is sent on until it falls inside (cycle walking, Black and Rogaway 2002).
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))  # bits
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    sent, outside = at.astype(np.uint64), np.ones(len(at), bool)  # (B,) each
    while outside.any():
        left, right = sent[outside] >> half, sent[outside] & low
        for one in keys:
            left, right = right, left ^ (_mixed(right ^ one) & low)
        sent[outside] = left << half | right
        outside = sent >= count
    return sent.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """64 bits of which each depends on every bit of x (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
