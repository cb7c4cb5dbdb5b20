"""The types that meet in a training step. Legend: B batch, L tokens, D width, C channels, H height, W width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Batch(NamedTuple):
    """What a data set serves: pictures and what they show."""

    images: Tensor  # (B, C, H, W) float32 in [-1, 1], or what a space stores of them where they were encoded
    captions: list[str]  # B of them; "" where a data set has none
    labels: Tensor  # (B,) int64 class of each picture; 0 where a data set has none
    features: Mapping[str, Tensor] = MappingProxyType({})  # of the captions, where they were encoded beforehand
    encoded: bool = False  # whether `images` are what a space stores of pictures


class PictureCounts(NamedTuple):
    """How many pictures a data set has."""

    learned: int  # that are trained on, each without its mirror image
    held_out: int  # that are never trained on, and validated on; 0 where the same are
    mirrored: bool  # whether half of those trained on, or of some of them, are shown as in a mirror


def part_of(size: int, rank: int, ranks: int) -> slice:
    """The part of a batch of `size` that process `rank` of `ranks` gets.

    Raises:
        ValueError: one line, when `size` is no multiple of `ranks`.
    """
    if size % ranks:
        raise ValueError(f"a batch of {size} for {ranks} processes; allowed: multiples of {ranks}")
    return slice(rank * size // ranks, (rank + 1) * size // ranks)


class Data(Protocol):
    """What `data.build(seed)` gives."""

    @property
    def counts(self) -> PictureCounts | None: ...  # None of a data set without end

    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # C, H, W of pictures to validate on: as many pixels as any has

    @property
    def sizes(self) -> Sequence[tuple[int, int]]: ...  # all H, W of those to train on; every batch has one of them

    @property
    def classes(self) -> int: ...  # labels are below this; 1 where a data set has none

    # What optimizer step `step` sees, `size` in all; of it process `rank` of `ranks` gets its part, in order.
    def train(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch: ...
    def validation(self, size: int) -> Batch: ...  # the same each time
    def captions(self, count: int) -> list[str]: ...  # to learn a vocabulary from, some `count` of them


class Scaling(NamedTuple):
    """What latents are moved and scaled by, each channel: z = (draw - shift) * scale."""

    shift: tuple[float, ...]  # (Z,), to five digits
    scale: tuple[float, ...]  # (Z,)

    @classmethod
    def of(cls, mean: Sequence[float], deviation: Sequence[float]) -> Scaling:
        """What gives channels of these means and deviations mean 0 and deviation 1."""
        shift, scale = mean, [1 / number for number in deviation]
        return cls(*(tuple(float(f"{x:.5g}") for x in numbers) for numbers in (shift, scale)))


@dataclass(frozen=True)
class Cond:
    """What a backbone is conditioned on. Never None: "nothing said" is a Cond too."""

    tokens: Tensor  # (B, L, D)
    mask: Tensor  # (B, L) bool, True where a token is real
    vector: Tensor  # (B, D) pooled

    @classmethod
    def of(cls, vector: Tensor) -> Cond:
        """A single token for each sample, `vector` (B, D), which is all there is to pool."""
        return cls(vector[:, None], torch.ones(len(vector), 1, dtype=torch.bool, device=vector.device), vector)

    def padded(self, length: int) -> Cond:
        """The same condition with masked tokens appended up to `length`."""
        extra = length - self.tokens.shape[1]
        assert extra >= 0, f"cannot pad {self.tokens.shape[1]} tokens to {length}"
        if extra == 0:
            return self
        return Cond(F.pad(self.tokens, (0, 0, 0, extra)), F.pad(self.mask, (0, extra)), self.vector)

    def trimmed(self) -> Cond:
        """The same condition without the last tokens, which are masked in every row; at least one is left."""
        said = self.mask.any(0).tolist()  # (L,)
        length = len(said) - said[::-1].index(True) if any(said) else 1
        return Cond(self.tokens[:, :length], self.mask[:, :length], self.vector)

    def where(self, keep: Tensor, other: Cond) -> Cond:
        """Row by row: this condition where `keep` (B,) is True, `other` elsewhere."""
        length = max(self.tokens.shape[1], other.tokens.shape[1])
        a, b = self.padded(length), other.padded(length)
        rows = keep[:, None]  # (B, 1)
        return Cond(
            torch.where(rows[..., None], a.tokens, b.tokens),
            torch.where(rows, a.mask, b.mask),
            torch.where(rows, a.vector, b.vector),
        )

    def cat(self, other: Cond) -> Cond:
        """Both batches, one after the other: (B1 + B2) rows."""
        length = max(self.tokens.shape[1], other.tokens.shape[1])
        a, b = self.padded(length), other.padded(length)
        return Cond(torch.cat([a.tokens, b.tokens]), torch.cat([a.mask, b.mask]), torch.cat([a.vector, b.vector]))
