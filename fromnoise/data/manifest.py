"""What is recorded of a prepared data set: manifest.json, beside its shards. Free of torch. Legend: C channels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from fromnoise.core.config import Config, explain
from fromnoise.core.files import write_text

MANIFEST = "manifest.json"
FORMAT = "fromnoise shards 2"
Half = Literal["float16", "bfloat16"]


class Layout(Config):
    """What a data set is prepared with: together with the samples in order, it decides every byte of its shards."""

    encoders: dict[str, str] = Field(default_factory=dict)
    """Who made the numbers: "vae" to the sha256 of its weights, "text" to what identifies the text encoders."""
    channels: PositiveInt = 3
    """Of a picture."""
    size: PositiveInt
    """Side in pixels of the pictures; with several sizes, of a square with as many pixels as the largest of them."""
    factor: PositiveInt = 1
    """Pixels along the side of a latent cell; 1 for pixels."""
    latent: PositiveInt
    """Channels of a latent; for pixels those of a picture."""
    sizes: Annotated[tuple[tuple[PositiveInt, PositiveInt], ...], Field(min_length=1)]
    """Rows and columns of the latents: one size, or one for each bucket."""
    dtype: Half = "float16"
    """Of the latents."""
    std: bool = True
    """Whether latents are Gaussians, with a standard deviation; pixels are not."""
    flipped: bool = False
    """Whether there are latents of mirror images, too, of pictures whose captions name no side."""
    texts: tuple[PositiveInt, ...] = ()
    """Width of the tokens of each text encoder; none where captions are kept without features."""
    text_dtype: Half = "float16"
    """Of the tokens and their pooled vectors."""
    classes: PositiveInt = 1
    """Labels are below this; 1 where there are none."""

    @property
    def parts(self) -> list[str]:
        """Names of the tensors that a latent consists of."""
        return ["mean", "std"] if self.std else ["mean"]


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
    def std(self) -> tuple[float, ...]:
        """(C,) standard deviation of latents drawn from the posteriors: 1 / scale."""
        return tuple(((m2 + noise) / self.count) ** 0.5 for m2, noise in zip(self.m2, self.noise, strict=True))

    @classmethod
    def none(cls, channels: int) -> Statistics:
        """Of no latents."""
        zero = (0.0,) * channels
        return cls(count=0, mean=zero, m2=zero, noise=zero)

    @classmethod
    def of(cls, mean: np.ndarray, std: np.ndarray) -> Statistics:
        """Of latents (C, M) float64, M numbers of each channel, at least one, by two passes."""
        at = mean.mean(1, keepdims=True)  # (C, 1)
        return cls(
            count=mean.shape[1],
            mean=tuple(at.flatten().tolist()),
            m2=tuple(((mean - at) ** 2).sum(1).tolist()),
            noise=tuple((std**2).sum(1).tolist()),
        )

    def merged(self, other: Statistics) -> Statistics:
        """Of both together (Chan, Golub and LeVeque 1979, equation 2.1), without a difference of large sums."""
        count = self.count + other.count
        if not count:
            return self
        a, b = (np.array([one.mean, one.m2, one.noise]) for one in (self, other))  # (3, C) each
        delta = b[0] - a[0]  # (C,)
        return Statistics(
            count=count,
            mean=tuple((a[0] + delta * (other.count / count)).tolist()),
            m2=tuple((a[1] + b[1] + delta**2 * (self.count * other.count / count)).tolist()),
            noise=tuple((a[2] + b[2]).tolist()),
        )


class StoredCounts(Config):
    """How much there is."""

    samples: NonNegativeInt = 0
    captions: NonNegativeInt = 0
    """Of all samples."""
    uncaptioned: NonNegativeInt = 0
    """Samples without a caption; for each of them "" is stored."""
    texts: NonNegativeInt = 0
    """Captions that differ, and "", shard by shard: each is stored once a shard."""
    tokens: NonNegativeInt = 0
    """Of all texts, by all encoders."""
    cut: NonNegativeInt = 0
    """Texts that are longer than an encoder reads."""
    faults: NonNegativeInt = 0
    """Entries of the source that could not be read."""
    animated: NonNegativeInt = 0
    """Samples that are the first frame of an animation."""

    def plus(self, other: StoredCounts) -> StoredCounts:
        """Of both together."""
        return StoredCounts(**{name: getattr(self, name) + getattr(other, name) for name in StoredCounts.model_fields})


class ShardEntry(Config):
    """What a shard holds."""

    name: str
    """File name."""
    bytes: PositiveInt
    """Size of the file."""
    sha256: str
    """Of its content, as the file itself records it."""
    counts: StoredCounts


class Manifest(Config):
    """A prepared data set."""

    format: Literal["fromnoise shards 2"] = FORMAT
    """Name and version."""
    source: str = ""
    """What it was prepared from, in a line."""
    class_names: tuple[str, ...] = ()
    """Of the classes, in the order of their numbers; none where they came as numbers."""
    layout: Layout
    counts: StoredCounts
    """Of all shards."""
    duplicates: NonNegativeInt = 0
    """Samples whose picture file is the same, byte for byte, as one before it."""
    statistics: Statistics
    shards: tuple[ShardEntry, ...]

    @model_validator(mode="after")
    def _add_up(self) -> Manifest:
        for what in StoredCounts.model_fields:
            told, found = getattr(self.counts, what), sum(getattr(shard.counts, what) for shard in self.shards)
            if told != found:
                raise ValueError(f"counts.{what} is {told:,}, but its shards have {found:,}")
        return self

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


def numbered(names: Sequence[str]) -> str:
    """The numbers and names of classes, as in "0 Dog, 1 bird, 2 cat": the first twenty, and how many more there are."""
    more = [f"and {len(names) - 20:,} more"] if len(names) > 20 else []
    return ", ".join([*(f"{i} {name}" for i, name in enumerate(names[:20])), *more])


def refuse_another(directory: Path, there: Layout, asked: Layout) -> None:
    """Find that what is `there` in `directory` was prepared as is `asked`.

    Raises:
        ValueError: one line that names the first difference.
    """
    if different := first_difference(_told(there), _told(asked)):
        raise ValueError(f"{directory} was prepared with {different}; choose another directory")


def first_difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """The first name whose values differ, and both; "" where none do."""
    names = (name for name in [*old, *new] if old.get(name) != new.get(name))
    return next((f"{name} {old.get(name)!r}, not {new.get(name)!r}" for name in names), "")


def text_identity(identity: str | None) -> dict[str, object]:
    """What identifies text encoders, each in turn, as `Layout.encoders` tells it, field by field."""
    every = enumerate(json.loads(identity or "[]"), 1)
    return {f"encoders.text.{i}.{name}": value for i, fields in every for name, value in fields.items()}


def _told(layout: Layout) -> dict[str, object]:
    text = text_identity(layout.encoders.get("text"))
    return {"encoders.vae": layout.encoders.get("vae")} | text | layout.model_dump(exclude={"encoders"})
