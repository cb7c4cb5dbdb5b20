"""A small MNIST of digits in a printed face, and runs on it that train in a second."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from fromnoise.conditioning.config import LabelConfig
from fromnoise.data import mnist
from fromnoise.data.config import MNISTConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.times import Uniform
from fromnoise.models.config import DiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.training.run import AdamW, Run, Training


class Watched:
    """Notes what is measured, and stops like Ctrl-C before the part of that number."""

    def __init__(self, stop: int = 99):
        self.seen: list[str] = []
        self.stop = stop

    @contextmanager
    def __call__(self, what: str) -> Iterator[Callable[[int, int], None]]:
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt
        self.seen.append(what)
        yield lambda done, total: None


def idx(array: np.ndarray) -> bytes:
    """The bytes of an array in MNIST's own format."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return gzip.compress(head + array.tobytes(), 1, mtime=0)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of MNIST's four files, with 300 digits to train on, 300 to validate, 300 to test."""
    place, rng = tmp_path_factory.mktemp("mnist"), random.Random(0)
    face = ImageFont.load_default(22)
    drawn = []
    for i in range(300):
        picture = Image.new("L", (28, 28))
        ImageDraw.Draw(picture).text((6 + rng.random() * 4, rng.random() * 4), str(i % 10), 255, face)
        drawn.append(np.asarray(picture))
    some, labels = np.stack(drawn), np.arange(300, dtype=np.uint8) % 10
    files = {
        "train-images-idx3-ubyte.gz": np.concatenate([some, some]),
        "train-labels-idx1-ubyte.gz": np.concatenate([labels, labels]),
        "t10k-images-idx3-ubyte.gz": some,
        "t10k-labels-idx1-ubyte.gz": labels,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "VALIDATION", 300)
        for name, array in files.items():
            (place / name).write_bytes(idx(array))
            patch.setitem(mnist.MD5, name, hashlib.md5((place / name).read_bytes()).hexdigest())
        yield place


def make_tiny(place: Path, name: str, **training: object) -> Run:
    """A run of three steps; "flow" goes straight, all others the way of DDPM."""
    backbone = DiTConfig(patch=7, width=24, depth=1, head_width=12)
    times = Uniform()
    straight = name == "flow"
    target = "flow" if straight else "eps"
    model = ModelConfig(
        backbone=backbone,
        conditioner=LabelConfig(width=24),
        path=Linear() if straight else VP(),
        objective=Objective(target=target, measure=target, times=times),
        sampling=Sampling(sampler="euler" if straight else "ddim", steps=2, guidance=2.0),
    )
    usual = {"steps": 3, "batch": 8, "precision": "float32", "compile": "off", "device": "cpu", "log_every": 1}
    settings = Training.model_validate({**usual, "optimizer": AdamW(), "previews": ("1",), **training})
    return Run(recipe=name, data=MNISTConfig(path=place), model=model, training=settings)


@pytest.fixture(scope="module")
def tiny(printed: Path) -> Callable[..., Run]:
    """`tiny(name, **training)`: a run on the small MNIST; `training` replaces fields of `Training`."""
    return partial(make_tiny, printed)
