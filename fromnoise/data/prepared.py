"""A prepared data set: latents and text features read from shards, of any number of samples.

Legend: B batch, C, h, w shape of a latent, L tokens of the longest caption of the batch, W width of a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fromnoise.core.types import Batch, PictureCounts, Scaling
from fromnoise.data.epochs import Turns
from fromnoise.data.manifest import read_manifest
from fromnoise.data.shards import Shard, Text, verify_shard
from fromnoise.data.shuffle import Shuffle, permute
from fromnoise.data.split import split

TRAINING, VALIDATION = 0, 1  # streams of chance


class Drawn(NamedTuple):
    """A sample with its chances taken."""

    stored: Tensor  # (2 C, h, w) float32, mean and standard deviation, or (C, h, w)
    caption: str
    label: int
    text: Text


class PreparedData:
    """What `fromnoise prepare` wrote in `directory`, mapped into memory: 8 bytes a sample are held besides, and 32 more
    where latents have several sizes.

    Batch k is a pure function of (seed, k, batch size), however many processes share it and however many threads make
    it. Every pass is a fresh permutation that shows each sample once, with one of its captions, and where its mirror
    image was encoded, as that half of the time. Where latents have several sizes, a batch is of one of them (`Turns`),
    and each size has passes of its own. These chances are functions of (seed, sample, pass) alone. About one sample in
    twenty, chosen by a hash of its key, is kept for validation: the same that `FolderData` keeps, if keys are file
    names.

    Batches have for images what was stored of them: mean and standard deviation (B, 2 C, h, w), of which a space draws
    latents, a fresh draw each time; pixels (B, C, h, w). In `features` they have what each text encoder i said of the
    captions: {"tokens_i": (B, L, W) float32, zero where masked, "mask_i": (B, L) bool, "vector_i": (B, W)}; nothing
    where the layout has no features.
    """

    def __init__(self, directory: Path, seed: int):
        """Map the shards.

        Raises:
            ValueError: one line: there is no prepared data set, it is empty, or a shard is missing or is not what the
                manifest tells of it. What is inside the shards is not read: `verify` does that.
        """
        self.directory, self.manifest, self.seed = directory, read_manifest(directory), seed
        self.layout = layout = self.manifest.layout
        if not self.manifest.counts.samples:
            raise ValueError(f"the prepared data set at {directory} holds no samples")
        self.image_shape = (layout.channels, layout.size, layout.size)
        self.sizes = [(height * layout.factor, width * layout.factor) for height, width in layout.sizes]
        self.classes = layout.classes
        self.problems: list[str] = []
        self.sha256 = hashlib.sha256("".join(shard.sha256 for shard in self.manifest.shards).encode()).hexdigest()
        self.shards = [Shard(directory, layout, entry) for entry in self.manifest.shards]
        self.firsts = np.cumsum([0, *(len(shard.chance) for shard in self.shards)])  # (shards + 1,)
        self.learned, self.held_out = split(np.concatenate([shard.chance for shard in self.shards]))
        sizes = np.concatenate([shard.size for shard in self.shards])
        self.buckets = [rows for at in range(len(layout.sizes)) if len(rows := self.learned[sizes[self.learned] == at])]
        shapes = [layout.sizes[sizes[rows[0]]] for rows in self.buckets]
        self.sizes = [(layout.factor * height, layout.factor * width) for height, width in shapes]
        self.turns = Turns([len(rows) for rows in self.buckets], seed)
        self.shuffles = [Shuffle(len(rows), own) for rows, own in zip(self.buckets, self.turns.seeds, strict=True)]
        commonest = np.bincount(sizes[self.held_out]).argmax()  # a batch has one size
        self.shown = self.held_out[sizes[self.held_out] == commonest]

    @property
    def scaling(self) -> Scaling:
        """What makes each channel of the latents, as stored, one of mean 0 and standard deviation 1."""
        return Scaling.of(self.manifest.statistics.mean, self.manifest.statistics.std)

    @property
    def counts(self) -> PictureCounts:
        """How many samples there are, held out those of the commonest size; of very few, none is held out."""
        all_learned = len(self.learned) == self.firsts[-1]
        return PictureCounts(len(self.learned), 0 if all_learned else len(self.shown), self.layout.flipped)

    def train(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The samples of optimizer step `step`, counted from 0: `size` in all, of which process `rank` of `ranks` gets
        its part, in order.

        Raises:
            ValueError: one line, when `size` is no multiple of `ranks`.
        """
        if size % ranks:
            raise ValueError(f"a batch of {size} for {ranks} processes; allowed: multiples of {ranks}")
        bucket, turn = self.turns.at(step)
        epoch, place = self.shuffles[bucket].batch(turn, size)  # (size,) each
        mine = slice(rank * size // ranks, (rank + 1) * size // ranks)
        return self._batch(self.buckets[bucket][place[mine]], epoch[mine], self.seed, TRAINING)

    def validation(self, size: int) -> Batch:
        """Fixed samples of the commonest size, the same for every seed, none of them trained on unless there are very
        few.

        Where `size` is more than there are, they come again, with other captions.
        """
        again, at = np.divmod(np.arange(size), len(self.shown))  # (B,) each
        return self._batch(self.shown[at], again, 0, VALIDATION)

    def captions(self, count: int) -> list[str]:
        """Captions of training samples to learn a vocabulary from: all, or those of a fixed draw, `count` of them."""
        return list(islice(self._captions(), count))

    def _captions(self) -> Iterator[str]:
        total = len(self.learned)
        for first in range(0, total, 1024):
            places = permute(np.arange(first, min(first + 1024, total)), total, (0,))
            for sample in self.learned[places]:
                shard, at = self._find(sample)
                yield from map(shard.text, shard.said.row(at))

    def _find(self, sample: int) -> tuple[Shard, int]:
        """The shard of a sample, and its place there."""
        index = int(np.searchsorted(self.firsts, sample, side="right")) - 1
        return self.shards[index], int(sample - self.firsts[index])

    def _batch(self, samples: np.ndarray, epochs: np.ndarray, seed: int, stream: int) -> Batch:
        drawn = [
            self._draw(int(sample), chances(seed, stream, int(sample), int(epoch)), stream == TRAINING)
            for sample, epoch in zip(samples, epochs, strict=True)
        ]
        for shard in {self._find(int(sample))[0] for sample in samples}:
            shard.release()
        stored = torch.stack([one.stored for one in drawn])  # (B, 2 C, h, w)
        labels = torch.tensor([one.label for one in drawn])  # (B,)
        features = pad([one.text for one in drawn])
        return Batch(stored, [one.caption for one in drawn], labels, features, "vae" in self.layout.encoders)

    def _draw(self, sample: int, rng: np.random.Generator, mirror: bool) -> Drawn:
        """A sample, its chances in the order: caption, side."""
        shard, at = self._find(sample)
        said = shard.said.row(at)
        text = said[int(rng.random() * len(said))]
        stored = shard.stored(at, flipped=mirror and self.layout.flipped and rng.random() < 0.5)
        return Drawn(stored, shard.text(text), int(shard.label[at]), shard.read(text))


def chances(seed: int, stream: int, sample: int, epoch: int) -> np.random.Generator:
    """The source of all chance in one sight of a sample: each starts at a counter that no other reaches (Philox,
    Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, sample, epoch, stream]))


def pad(texts: Sequence[Text]) -> dict[str, Tensor]:
    """Features of a batch, of each encoder as wide as the longest caption (see `PreparedData`)."""
    features = {}
    for i, tokens in enumerate(zip(*(text.tokens for text in texts), strict=True)):
        lengths = torch.tensor([len(one) for one in tokens])  # (B,)
        padded = pad_sequence(list(tokens), batch_first=True)  # (B, L, W)
        features |= {f"tokens_{i}": padded, f"mask_{i}": torch.arange(padded.shape[1]) < lengths[:, None]}
        features[f"vector_{i}"] = torch.stack([text.vectors[i] for text in texts])  # (B, W)
    return features


def verify(directory: Path) -> None:
    """Read every byte of the prepared data set in `directory`, and find that it is what was written.

    Raises:
        ValueError: one line that names the first file at fault.
    """
    manifest = read_manifest(directory)
    for entry in manifest.shards:
        verify_shard(directory, manifest.layout, entry)
