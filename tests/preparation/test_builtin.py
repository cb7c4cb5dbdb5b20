"""The data sets that come with the package, as sources: their own pixels, captions and classes."""

import os
from pathlib import Path

import numpy as np
import pytest

from fromnoise.data.buckets import Size
from fromnoise.data.cifar10 import cifar10
from fromnoise.data.config import CIFAR10Config, MNISTConfig
from fromnoise.data.mnist import mnist
from fromnoise.data.pictures import fit
from fromnoise.data.scenes import COLOURS, SHAPES
from fromnoise.preparation.decode import decode
from fromnoise.preparation.sources.source import Picture

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))
SETS = {"mnist": lambda: mnist(MNISTConfig(), 0), "cifar10": lambda: cifar10(CIFAR10Config(), 0)}


def pixels_of(picture: Picture, side: int) -> np.ndarray:
    return fit(*decode(picture.content, lambda own: Size(side, side), 0)[:2])


@pytest.mark.skipif(not DATA.is_dir(), reason="$FROMNOISE_DATA is absent")
@pytest.mark.parametrize(("name", "count", "side"), [("mnist", 55_000, 28), ("cifar10", 45_000, 32)])
def test_published_pictures(made, name, count, side):
    source, data = made.source(name), SETS[name]()
    assert source.entries == count and source.classes == 10
    rest = source.portions[-1]["count"]
    for portion, images, labels in (
        (source.portions[0], data.learned.images[:1024], data.learned.labels[:1024]),
        (source.portions[-1], data.learned.images[-rest:], data.learned.labels[-rest:]),
    ):
        found = list(source.read(portion))
        assert [entry.label for entry in found] == labels.tolist()
        assert all(entry.captions == tuple(data.said[entry.label]) for entry in found)
        for entry, image in list(zip(found, images, strict=True))[::100]:
            assert (pixels_of(entry, side) == image).all()  # grey is told thrice
    assert found[-1].key == f"{name}:{count - 1}"
    again = made.source(name, shard=99)
    assert again.identity == source.identity
    assert list(source.read({"first": 7, "count": 1})) == list(again.read(again.portions[0]))[7:8]


def test_scenes_of_shapes(made):
    source = made.source("shapes:100", shard=70, size=64)
    found = made.pictures(source)
    assert list(found) == [f"shapes:{i}" for i in range(100)]
    assert len({picture.content for picture in found.values()}) == 100
    for picture in found.values():
        pixels = pixels_of(picture, 64)  # (3, 64, 64)
        assert any(shape in picture.captions[0] for shape in SHAPES)
        for name, colour in COLOURS.items():
            if name in picture.captions[0].split():
                assert (np.abs(pixels.astype(int) - np.array(colour)[:, None, None]).max(0) <= 2).any(), picture.key
    assert made.source("shapes:50", size=64).identity == source.identity  # of which it is the beginning
    assert made.source("shapes:100").identity != source.identity


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("shapes", "shapes: is no source; allowed: shapes:COUNT, as shapes:20000"),
        ("shapes:many", "shapes:many is no source"),
        ("shapes:0", "shapes:0 is no source"),
        ("mnist:3", "mnist:3 is no source; allowed: mnist"),
        ("cifar", "nearest: cifar10"),
    ],
)
def test_names_that_are_none(made, where, said):
    assert said in made.refusal(lambda: made.source(where))
