"""What is recorded of a prepared data set: manifest.json, beside its shards. Free of torch. Legend: C channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from fromnoise.core.config import Config, explain
from fromnoise.core.files import write_text

MANIFEST = "manifest.json"
Half = Literal["float16", "bfloat16"]


class Layout(Config):
    """What a data set is prepared with. It decides every byte of its shards, together with the samples in order."""

    encoders: dict[str, str]
    """Who made the numbers: a name, as "vae" or "text", to an identity, as the sha256 of its weights."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Channels, rows and columns of a latent."""
    dtype: Half = "float16"
    """Of the latents."""
    std: bool = True
    """Whether latents are Gaussians, with a standard deviation; pixels are not."""
    flipped: bool = False
    """Whether the latent of each picture's mirror image is there, too."""
    text_width: NonNegativeInt = 0
    """Numbers of each token; 0 where captions are kept without features."""
    text_dtype: Half = "float16"
    """Of the tokens."""
    shard: Annotated[int, Field(ge=1, le=99_999)] = 1024
    """Samples of a shard."""

    @property
    def parts(self) -> list[str]:
        """Names of the tensors that a latent consists of."""
        one = ["mean", "std"] if self.std else ["mean"]
        return [*one, *(f"flipped_{name}" for name in one)] if self.flipped else one


class Statistics(Config):
    """Of the latents as stored, less their mirror images, channel by channel; in float64."""

    count: NonNegativeInt
    """Numbers of each channel."""
    mean: tuple[float, ...]
    """(C,) mean of the posteriors' means."""
    m2: tuple[float, ...]
    """(C,) sum of their squared distances from `mean`."""
    noise: tuple[float, ...]
    """(C,) sum of the posteriors' variances; 0 for pixels."""

    @property
    def std(self) -> list[float]:
        """(C,) standard deviation of latents drawn from the posteriors: 1 / scale."""
        return [((m2 + noise) / self.count) ** 0.5 for m2, noise in zip(self.m2, self.noise, strict=True)]

    @classmethod
    def of(cls, mean: np.ndarray, std: np.ndarray) -> Statistics:
        """Of latents (N, C, h, w) float64, by two passes."""
        at = mean.mean((0, 2, 3), keepdims=True)  # (1, C, 1, 1)
        return cls(
            count=mean[:, 0].size,
            mean=tuple(at.flatten().tolist()),
            m2=tuple(((mean - at) ** 2).sum((0, 2, 3)).tolist()),
            noise=tuple((std**2).sum((0, 2, 3)).tolist()),
        )

    def merged(self, other: Statistics) -> Statistics:
        """Of both together (Chan, Golub and LeVeque 1979, equation 2.1), without a difference of large sums."""
        count = self.count + other.count
        a, b = (np.array([one.mean, one.m2, one.noise]) for one in (self, other))  # (3, C) each
        delta = b[0] - a[0]  # (C,)
        return Statistics(
            count=count,
            mean=tuple((a[0] + delta * (other.count / count)).tolist()),
            m2=tuple((a[1] + b[1] + delta**2 * (self.count * other.count / count)).tolist()),
            noise=tuple((a[2] + b[2]).tolist()),
        )


class ShardEntry(Config):
    """What a shard holds."""

    name: str
    """File name."""
    samples: PositiveInt
    captions: PositiveInt
    """Of all its samples."""
    texts: PositiveInt
    """Captions that differ: each is stored once."""
    tokens: NonNegativeInt
    """Of all its texts."""
    bytes: PositiveInt
    """Size of the file."""
    sha256: str
    """Of its content, as the file itself records it."""


class Manifest(Config):
    """A prepared data set. Every shard but the last has `layout.shard` samples."""

    format: Literal["fromnoise shards 1"] = "fromnoise shards 1"
    """Name and version."""
    layout: Layout
    samples: NonNegativeInt
    captions: NonNegativeInt
    statistics: Statistics
    """Of all shards."""
    before: Statistics
    """Of all shards but the last, which may be filled up later."""
    shards: tuple[ShardEntry, ...]

    @classmethod
    def empty(cls, layout: Layout) -> Manifest:
        """Of no samples."""
        zero = (0.0,) * layout.shape[0]
        none = Statistics(count=0, mean=zero, m2=zero, noise=zero)
        return cls(layout=layout, samples=0, captions=0, statistics=none, before=none, shards=())

    @model_validator(mode="after")
    def _add_up(self) -> Manifest:
        for what in ("samples", "captions"):
            told, found = getattr(self, what), sum(getattr(shard, what) for shard in self.shards)
            if told != found:
                raise ValueError(f"{what} is {told:,}, but its shards have {found:,}")
        for shard in self.shards[:-1]:
            if shard.samples != self.layout.shard:
                raise ValueError(f"shard {shard.name} has {shard.samples:,} samples, not {self.layout.shard:,}")
        return self

    def without_last(self) -> Manifest:
        """The same before its last shard was written."""
        return self._of(self.shards[:-1], self.before, self.before)

    def with_shard(self, shard: ShardEntry, statistics: Statistics) -> Manifest:
        """The same with one more shard, of these statistics."""
        return self._of((*self.shards, shard), self.statistics.merged(statistics), self.statistics)

    def _of(self, shards: tuple[ShardEntry, ...], statistics: Statistics, before: Statistics) -> Manifest:
        return Manifest(
            layout=self.layout,
            samples=sum(shard.samples for shard in shards),
            captions=sum(shard.captions for shard in shards),
            statistics=statistics,
            before=before,
            shards=shards,
        )

    def write(self, directory: Path) -> None:
        """Replace the manifest in `directory`, whole or not at all; errors as in `write_text`."""
        write_text(directory / MANIFEST, json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the prepared data set in `directory`.

    Raises:
        ValueError: one line: there is none, it is of another format, or its counts do not add up.
    """
    path = directory / MANIFEST
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ValueError(f"no prepared data set at {directory}: it holds no {MANIFEST}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def refuse_another(directory: Path, there: Layout, asked: Layout) -> None:
    """Find that what is `there` in `directory` was prepared as is `asked`.

    Raises:
        ValueError: one line that names the first difference.
    """
    old, new = _told(there), _told(asked)
    for name in [*old, *new]:
        if old.get(name) != new.get(name):
            difference = f"{name} {old.get(name)!r}, not {new.get(name)!r}"
            raise ValueError(f"{directory} was prepared with {difference}; choose another directory")


def _told(layout: Layout) -> dict[str, object]:
    encoders: dict[str, object] = {f"encoders.{name}": identity for name, identity in layout.encoders.items()}
    return encoders | layout.model_dump(exclude={"encoders"})
