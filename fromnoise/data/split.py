"""Which pictures are trained on, and which are kept for validation: decided by the name of each alone."""

from __future__ import annotations

import hashlib

import numpy as np

from fromnoise.data.texts import shown

VALIDATION = 0.05  # share of the pictures that are never trained on
FEW = 20  # below this many pictures, all are trained on and validation looks at the same ones


def chance(name: str) -> float:
    """A number in [0, 1) that a picture's name decides."""
    return int.from_bytes(hashlib.sha256(shown(name).encode()).digest()[:8], "big") / 2**64


def split(chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pictures to train on, and of those to validate on in a fixed random order.

    chances: (N,), of each picture's name. A picture's side depends on its own name only, so that it keeps it when
    others are added.
    """
    by_chance = np.argsort(chances, kind="stable")  # (N,)
    if len(chances) < FEW:
        return np.arange(len(chances)), by_chance
    held_out = by_chance[: max(1, int((chances < VALIDATION).sum()))].copy()  # or all of `by_chance` stays in memory
    learned = np.ones(len(chances), bool)
    learned[held_out] = False
    return np.flatnonzero(learned), held_out
