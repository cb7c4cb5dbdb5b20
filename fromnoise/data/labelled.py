"""Labelled pictures with captions made from their classes. Legend: B batch, N pictures, C channels, S side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.types import Batch, PictureCounts
from fromnoise.data.epochs import Epochs


class Labelled(NamedTuple):
    """Pictures and their classes."""

    images: np.ndarray  # (N, C, S, S) uint8
    labels: np.ndarray  # (N,) uint8


class LabelledData:
    """A published data set, held in memory as bytes, with several ways to say each class.

    Batch k is a pure function of (seed, k, batch size). Every pass over the pictures is a fresh permutation that shows
    each of them once, with one of its class's captions.
    """

    def __init__(
        self,
        train: Labelled,
        validation: Labelled,
        test: Callable[[], Labelled],
        said: Sequence[list[str]],
        seed: int,
        flip: bool,
    ):
        """`test` is read when it is asked for; `said` are the captions of each class; `flip` mirrors half of what is
        trained on."""
        self.learned, self.held_out, self.test = train, validation, test
        self.said, self.flip = said, flip
        channels, size, _ = train.images.shape[1:]
        self.image_shape = (channels, size, size)
        self.sizes = [self.image_shape[1:]]
        self.classes = len(said)
        self.problems: list[str] = []
        self.epochs = Epochs(len(train.labels), seed)

    @property
    def counts(self) -> PictureCounts:
        """How many pictures there are to train on and to validate on; those to test on are others."""
        return PictureCounts(len(self.learned.labels), len(self.held_out.labels), self.flip)

    def train(self, step: int, size: int) -> Batch:
        """The `size` pictures and captions of optimizer step `step`, counted from 0."""
        draws = self.epochs.batch(step, size)
        batch = self._batch(self.learned, draws.order, draws.caption)
        if self.flip:
            flips = torch.from_numpy(draws.mirror)  # (B,) bool
            batch.images[flips] = batch.images[flips].flip(-1)
        return batch

    def validation(self, size: int) -> Batch:
        """Fixed pictures, the same for every seed, none of them trained on; they go round where `size` is more."""
        count, chances = len(self.held_out.labels), np.random.default_rng(0).random(size)
        return self._batch(self.held_out, np.arange(size) % count, chances)

    def captions(self, count: int) -> list[str]:
        """Captions to learn a vocabulary from: each there is once, or a fixed draw of `count` of them."""
        said = [caption for known in self.said for caption in known]
        if len(said) <= count:
            return said
        return [said[i] for i in np.random.default_rng(0).choice(len(said), count, replace=False)]

    def pictures(self, split: str) -> tuple[Tensor, Tensor]:
        """All of "train", "validation" or "test": images (N, C, S, S) uint8, and labels (N,) int64.

        Raises:
            ValueError: one line, for another split, or where the test pictures are not there.
        """
        splits = {"train": lambda: self.learned, "validation": lambda: self.held_out, "test": self.test}
        if split not in splits:
            raise ValueError(f"split {split!r}; allowed: {', '.join(splits)}")
        images, labels = splits[split]()
        return torch.from_numpy(images), torch.from_numpy(labels).long()

    def _batch(self, source: Labelled, rows: np.ndarray, chances: np.ndarray) -> Batch:
        """`rows` (B,) of the pictures; `chances` (B,) in [0, 1) choose among the captions of their classes."""
        labels = source.labels[rows]  # (B,)
        captions = [
            self.said[label][int(chance * len(self.said[label]))] for label, chance in zip(labels, chances, strict=True)
        ]
        return Batch(scaled(torch.from_numpy(source.images[rows])), captions, torch.from_numpy(labels).long())


def scaled(images: Tensor) -> Tensor:
    """Bytes as models see them: float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
