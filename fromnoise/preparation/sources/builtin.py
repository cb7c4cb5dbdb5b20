"""The data sets that come with the package, as sources. Legend: N pictures, C channels, S side, H height, W width."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image

from fromnoise.data import cifar10, mnist
from fromnoise.data.config import CIFAR10Config, MNISTConfig
from fromnoise.data.labelled import LabelledData
from fromnoise.data.shapes import draw_scene, render
from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source, hashed, ranges

RENDERED = 64  # scenes drawn at once


class Published(NamedTuple):
    """A data set as it was published."""

    load: Callable[[], LabelledData]
    """Its training pictures; those held out there, which judge what is drawn, are no part of a source."""
    content: str
    """What its pictures are known by."""


PUBLISHED = {
    "cifar10": Published(lambda: cifar10.cifar10(CIFAR10Config(), 0), cifar10.TRAIN_SHA256),
    "mnist": Published(lambda: mnist.mnist(MNISTConfig(), 0), " ".join(mnist.MD5.values())),
}


@lru_cache(maxsize=1)
def _loaded(name: str) -> LabelledData:
    return PUBLISHED[name].load()  # once in each process, and left behind where a source goes to another


class PublishedSource(Source):
    """The training pictures of MNIST or CIFAR-10, with all captions of their classes. They are held in memory."""

    def __init__(self, name: str, options: SourceOptions):
        """Raises:
        ValueError: one line, when the published files are damaged, or cannot be had.
        """
        data = _loaded(name)
        self.name, self.said, self.classes = name, [tuple(captions) for captions in data.said], data.classes
        self.entries = len(data.learned.labels)
        self.portions = ranges(self.entries, options.shard)
        self.parts = {"captions": hashed(map(repr, self.said)), "pictures": hashed([PUBLISHED[name].content])}
        self.about = f"{self.entries:,} pictures of {name}, {self.classes} classes, {len(self.said[0])} captions each"

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its pictures, as PNG."""
        images, labels = _loaded(self.name).learned
        for place in range(portion["first"], portion["first"] + portion["count"]):
            pixels, label = images[place].transpose(1, 2, 0), int(labels[place])  # (S, S, C)
            yield Picture(f"{self.name}:{place}", png(pixels), self.said[label], label)


class ShapesSource(Source):
    """Procedural scenes of coloured shapes, each of a seed of its own."""

    def __init__(self, count: int, options: SourceOptions):
        """`count` scenes."""
        self.size, self.entries = options.size, count
        self.portions = ranges(count, options.shard)
        first = self.read({"first": 0, "count": min(count, 8)})  # another way to draw is another source
        self.parts = {"pictures": hashed(map(repr, first))}
        self.about = f"{count:,} scenes of shapes at {self.size} px, a caption each"

    def read(self, portion: Portion) -> Iterator[Picture | Fault]:
        """Its scenes, as PNG."""
        end = portion["first"] + portion["count"]
        for start in range(portion["first"], end, RENDERED):
            places = range(start, min(start + RENDERED, end))
            prompts, scenes = zip(*(draw_scene(Random(f"source/{place}")) for place in places), strict=True)
            pictures = (render(list(scenes), self.size) * 255).round().astype(np.uint8)  # (N, H, W, 3)
            for place, prompt, pixels in zip(places, prompts, pictures, strict=True):
                yield Picture(f"shapes:{place}", png(pixels), (prompt.text,))


def png(pixels: np.ndarray) -> bytes:
    """The file of a picture (H, W, 1 or 3) uint8, not compressed, as it is soon decoded again."""
    out = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(out, "png", compress_level=0)
    return out.getvalue()
