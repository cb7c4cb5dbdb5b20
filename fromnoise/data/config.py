"""The data sets by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.core.types import Data
    from fromnoise.data.bucketed import BucketData
    from fromnoise.data.folder import FolderData
    from fromnoise.data.labelled import LabelledData
    from fromnoise.data.prepared import PreparedData
    from fromnoise.data.shapes import ShapesData


class DataConfig(Config, ABC):
    """Where pictures and what is said of them come from."""

    type: str

    @abstractmethod
    def build(self, seed: int) -> Data:
        """The data set; `seed` decides the order in which it is served."""


class ShapesConfig(DataConfig):
    """Procedural captioned scenes of one to four coloured shapes: endless, seeded, with an exact checker."""

    type: Literal["shapes"] = "shapes"
    size: Annotated[int, Field(ge=32, le=256)] = 32
    """Side of a picture, in pixels."""

    def build(self, seed: int) -> ShapesData:
        from fromnoise.data.shapes import ShapesData

        return ShapesData(self, seed)


class FolderConfig(DataConfig):
    """A directory of pictures with captions: metadata.jsonl, a CSV, or a .txt beside each picture."""

    type: Literal["folder"] = "folder"
    path: Path
    """The directory."""
    size: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square that pictures are resized and centre-cropped to, in pixels."""
    flip: bool = False
    """Mirror half of the pictures, except where the caption names a side."""
    background: Annotated[int, Field(ge=0, le=255)] = 255
    """Grey level that transparent pictures are laid on."""
    sha256: str | None = None
    """Of the pictures' names, sizes in bytes and captions (derived from the data): a run goes on with those that it was
    begun with, or not at all."""

    def build(self, seed: int) -> FolderData:
        from fromnoise.data.folder import FolderData

        return FolderData(self, seed)


class BucketsConfig(DataConfig):
    """A directory as folder takes it, whose pictures keep their shapes: sorted by aspect into buckets of about as many
    pixels each, and cropped as little as can be. Every batch is of one bucket."""

    type: Literal["buckets"] = "buckets"
    path: Path
    """The directory."""
    size: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square that has as many pixels as the largest bucket; also what is validated and previewed in."""
    multiple: Annotated[int, Field(ge=1, le=512)] | None = None
    """Sides of buckets are multiples of this many pixels, and so must they be for the backbone and the VAE; left out,
    about a sixteenth of size, at least 8."""
    largest_aspect: Annotated[float, Field(ge=1, le=8)] = 2.0
    """How many times as long as the other a side of a bucket may be; what is longer is cropped."""
    tiers: Annotated[int, Field(ge=1, le=8)] = 2
    """Resolutions: size, its half, its quarter, ...; what is too small for one goes to the next, then is left out."""
    upscale: bool = False
    """Enlarge what is smaller than its bucket, in place of lower tiers."""
    flip: bool = False
    """Mirror half of the pictures, except where the caption names a side."""
    background: Annotated[int, Field(ge=0, le=255)] = 255
    """Grey level that transparent pictures are laid on."""
    sha256: str | None = None
    """Of the pictures' names, sizes in bytes and captions (derived from the data): a run goes on with those that it was
    begun with, or not at all."""

    def build(self, seed: int) -> BucketData:
        from fromnoise.data.bucketed import BucketData

        return BucketData(self, seed)


class PreparedConfig(DataConfig):
    """What `fromnoise prepare` wrote: pictures and captions encoded beforehand, of any number, read from disk."""

    type: Literal["prepared"] = "prepared"
    path: Path
    """The directory it was written to."""
    sha256: str | None = None
    """Of its shards (derived from the data): a run goes on with the data set that it was begun with, or not at all."""

    def build(self, seed: int) -> PreparedData:
        from fromnoise.data.prepared import PreparedData

        return PreparedData(self.path, seed)


class MNISTConfig(DataConfig):
    """MNIST: handwritten digits, one channel; 55,000 to train on, 5,000 to validate, 10,000 to test."""

    type: Literal["mnist"] = "mnist"
    path: Path | None = None
    """Directory of the four published .gz files; left out, $FROMNOISE_DATA/mnist, else ~/.cache/fromnoise/mnist, where
    they are downloaded to (11 MiB)."""
    size: Annotated[int, Field(ge=28, le=32, multiple_of=4)] = 28
    """Side of a picture, in pixels: 28, or 32 with two black pixels on every side, which halves more often."""

    def build(self, seed: int) -> LabelledData:
        from fromnoise.data.mnist import mnist

        return mnist(self, seed)


class CIFAR10Config(DataConfig):
    """CIFAR-10: photographs of ten classes, 32 pixels wide; 45,000 to train on, 5,000 to validate, 10,000 to test."""

    type: Literal["cifar10"] = "cifar10"
    path: Path | None = None
    """Directory of cifar-10-batches-bin, cifar-10-batches-py, a .tar.gz of either, or parquet files (train-*.parquet);
    left out, $FROMNOISE_DATA/cifar10, else ~/.cache/fromnoise/cifar10, where it is downloaded to (162 MiB)."""
    flip: bool = True
    """Mirror half of the pictures trained on."""

    def build(self, seed: int) -> LabelledData:
        from fromnoise.data.cifar10 import cifar10

        return cifar10(self, seed)


DATASETS: list[type[DataConfig]] = [
    ShapesConfig,
    FolderConfig,
    BucketsConfig,
    PreparedConfig,
    MNISTConfig,
    CIFAR10Config,
]

OWN_DATA = (FolderConfig, BucketsConfig, PreparedConfig)
"""Those of a user's own pictures, of which a run records what tells them from others."""
