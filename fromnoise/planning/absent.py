"""What stands in for data, a VAE and text encoders that are not at hand: of the same shapes, and told as assumed.

Legend: B batch, T texts, C channels, H height, W width of a picture, S channels of what is stored, h and w of a latent,
L tokens, D width of a token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import nn

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.conditioning.frozen import Encoded, FrozenEncoder, FrozenTextConditioner
from fromnoise.core.types import Batch, Data, PictureCounts
from fromnoise.data.config import BucketsConfig, CIFAR10Config, DataConfig, FolderConfig, MNISTConfig, ShapesConfig
from fromnoise.data.published import cache, folder
from fromnoise.models.config import VAEConfig
from fromnoise.space.config import LatentConfig
from fromnoise.space.folder import VAEFault
from fromnoise.space.latent import LatentSpace
from fromnoise.training.run import Run, VAERun

PUBLISHED = {  # encoders by a part of their names: width, and parameters of the half that reads
    "clip-vit-base": (512, 63_165_952),
    "clip-vit-large": (768, 123_060_480),
    "clip-vit-bigg": (1280, 694_659_840),
    "qwen2.5-vl-7b": (3584, 7_070_619_136),
    "t5-base": (768, 109_628_544),
    "t5-v1_1-base": (768, 109_628_544),
    "t5-large": (1024, 335_000_000),
    "t5-v1_1-xl": (2048, 1_222_000_000),
    "t5-v1_1-xxl": (4096, 4_762_310_656),
}
USUAL = "clip-vit-large"
VAE = VAEConfig()  # Stable Diffusion's
WORDS = 4000  # of captions by chance: as many as fill any vocabulary

Say = Callable[[str], None]


class Seen(NamedTuple):
    """What a data set serves."""

    shape: tuple[int, int, int]  # C, H, W
    count: int | None
    classes: int
    said: str


class Absent:
    """Data of the shape that a run tells of: pictures of nothing, with captions as long as any is read."""

    def __init__(self, seen: Seen, stored: tuple[int, int, int] | None):
        """stored: (S, h, w) of what is kept of a picture; None where pictures come as they are."""
        self.image_shape, count, self.classes, _ = seen
        self.counts = None if count is None else PictureCounts(count, 0, mirrored=False)
        self.sizes = [self.image_shape[1:]]
        self.stored = stored

    def train(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The same each time, and for all."""
        images = torch.zeros(size, *(self.stored or self.image_shape))  # (B, S, h, w) or (B, C, H, W)
        labels = torch.zeros(size, dtype=torch.int64)
        return Batch(images, self.captions(size), labels, encoded=self.stored is not None)

    def validation(self, size: int) -> Batch:
        """As `train`."""
        return self.train(0, size)

    def captions(self, count: int) -> list[str]:
        """Texts of a hundred words, of `WORDS` different ones."""
        rng = Random(0)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(WORDS)]
        return [" ".join(rng.choices(words, k=100)) for _ in range(min(count, 400))]


class AbsentEncoder(FrozenEncoder):
    """A frozen text encoder of which only the width is known."""

    def __init__(self, config: EncoderConfig, width: int, parameters: int):
        self.config, self.wide, self.parameters = config, width, parameters
        self.model, self.sha256, self.lock = nn.Identity(), "", threading.Lock()

    @property
    def width(self) -> int:
        """D."""
        return self.wide

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """All as long as is read."""
        return [self.config.length] * len(texts)

    def read(self, texts: Sequence[str]) -> Encoded:
        """Zeros."""
        count, length = len(texts), self.config.length
        mask = torch.ones(count, length, dtype=torch.bool)  # (T, L)
        return Encoded(torch.zeros(count, length, self.wide), mask, torch.zeros(count, self.wide))


def find_data(run: Run | VAERun, assume: Say) -> Data:
    """The data of `run`, or what stands in for them; what is assumed is told."""
    try:
        if isinstance(run.data, MNISTConfig | CIFAR10Config) and folder(run.data.path, run.data.type) == cache(
            run.data.type
        ):
            raise ValueError(f"{run.data.type} is not here, and a plan downloads nothing")
        return run.data.build(run.training.seed)
    except (OSError, ValueError) as error:
        seen = _seen(run.data, run.model.size if isinstance(run, Run) else 0)
        assume(f"{seen.said}, since the data are absent: {error}")
    if isinstance(run, Run) and isinstance(run.model.space, LatentConfig):
        vae = describe_vae(run.model.space)
        height, width = (side // vae.factor for side in seen.shape[1:])
        return Absent(seen, (vae.stored_channels, height, width))
    return Absent(seen, None)


def _seen(data: DataConfig, size: int) -> Seen:
    if isinstance(data, MNISTConfig):
        return Seen((1, data.size, data.size), 55_000, 10, f"55,000 digits of {data.size} pixels")
    if isinstance(data, CIFAR10Config):
        return Seen((3, 32, 32), 45_000, 10, "45,000 photographs of 32 pixels")
    side = data.size if isinstance(data, FolderConfig | BucketsConfig | ShapesConfig) else size
    return Seen((3, side, side), None, 1_000_000, f"pictures of 3 x {side} x {side}, of a number not known")


def describe_vae(config: LatentConfig) -> Any:
    """The config of the autoencoder at `config.path`, or Stable Diffusion's."""
    from fromnoise.space.folder import describe

    try:
        return describe(config.path).config
    except VAEFault:
        return VAE


def find_space(run: Run, assume: Say) -> nn.Module:
    """The space of `run`, with a VAE of Stable Diffusion's shape where its own is absent."""
    config = run.model.space
    try:
        config.check()
        return config.build()
    except VAEFault as error:
        assume(f"a VAE of Stable Diffusion's shape (4 channels, 8 pixels a cell), since its own is absent: {error}")
        assert isinstance(config, LatentConfig), "no other space has a VAE"
        return LatentSpace(config.path, config.shift, config.scale, VAE.build())


def find_conditioner(run: Run, data: Data, captions: int, assume: Say) -> Any:
    """The conditioner of `run`; encoders that are not here are assumed to be as published."""
    config = run.model.conditioner
    if not isinstance(config, FrozenTextConfig) or all(Path(one.path).is_dir() for one in config.encoders):
        return config.build(data.captions(captions))
    encoders = [FrozenEncoder(one) if Path(one.path).is_dir() else _published(one, assume) for one in config.encoders]
    return FrozenTextConditioner(config, encoders)


def _published(config: EncoderConfig, assume: Say) -> FrozenEncoder:
    known = next((name for name in PUBLISHED if name in config.path.lower()), None)
    width, parameters = PUBLISHED[known or USUAL]
    told = "as published" if known else f"as {USUAL}'s, since it is not here"
    assume(f"text encoder {config.path}: {parameters / 1e6:.0f}M parameters, tokens {width} wide, {told}")
    return AbsentEncoder(config, width, parameters)
