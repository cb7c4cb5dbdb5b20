"""A pipeline whose text tokens are given, what it is trained on, and what it draws: for timing a backbone alone.

Legend: B batch, C channels, S side, L text tokens, D width.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import torch
from torch import Tensor, nn

from fromnoise.core.types import Batch, Cond
from fromnoise.diffusion.loss import Objective
from fromnoise.models.config import BackboneConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.step import Sample, draw, generator_of


class Sizes(Protocol):
    """How much is done at once."""

    @property
    def side(self) -> int: ...  # of a picture, in pixels
    @property
    def batch(self) -> int: ...  # pictures of an optimizer step
    @property
    def pictures(self) -> int: ...  # drawn together
    @property
    def guidance(self) -> float: ...


def by_chance(module: nn.Module) -> None:
    """Weights of which none is zero, as gates and last layers are at the start."""
    generator = generator_of(0, 4)
    for p in module.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5, generator=generator)


class Given(nn.Module):
    """A conditioner whose tokens are given, so that what is timed is the transformer: row i of a batch has row i."""

    def __init__(self, rows: int, length: int, width: int):
        super().__init__()
        generator = generator_of(0, 0)
        counts = torch.arange(rows) % max(1, length - 4) + min(5, length)  # 5 to L real tokens
        self.width, self.length = width, length
        self.mask = torch.arange(length) < counts[:, None]  # (rows, L)
        self.tokens = torch.randn(rows, length, width, generator=generator) * self.mask[..., None]  # (rows, L, D)
        self.register_buffer("nothing", torch.randn(width, generator=generator))

    def labels(self, prompts: list[str]) -> list[int]:
        return [0] * len(prompts)

    def encode(self, captions: list[str], labels: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.tokens[: len(captions)], "mask": self.mask[: len(captions)]}

    def read(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encode(batch.captions, batch.labels)

    def forward(self, features: dict[str, Tensor]) -> Cond:
        return Cond(features["tokens"], features["mask"], features["tokens"].mean(1))

    def null(self, n: int) -> Cond:
        """One real token, padded to L, as the package's text conditioner has it."""
        vector = self.get_buffer("nothing").expand(n, -1)  # (n, D)
        mask = torch.ones(n, 1, dtype=torch.bool, device=vector.device)  # (n, 1)
        return Cond(vector[:, None], mask, vector).padded(self.length)

    def notice(self, prompts: list[str]) -> str:
        return ""


def pipeline_of(backbone: BackboneConfig, channels: int, side: int, given: Given) -> Pipeline:
    """The backbone in a pipeline of pictures, or latents, of so many channels and this side; it learns the flow."""
    objective = Objective(target="flow", measure="flow", dropout=0.0)
    config = ModelConfig(backbone=backbone, objective=objective, size=side, channels=channels)
    return Pipeline(config, given, config.space.build())


def random_sample(pipeline: Pipeline, settings: Sizes, size: int) -> Sample:
    shape = (size, pipeline.config.channels, settings.side, settings.side)
    images = torch.rand(shape, generator=generator_of(0, 2)) * 2 - 1  # (B, C, S, S)
    return draw(pipeline, Batch(images, [""] * size, torch.zeros(size, dtype=torch.int64)), generator_of(0, 3))


def sample_of(pipeline: Pipeline, settings: Sizes) -> tuple[Sample, Cond]:
    """The one step that is trained on again and again, and its condition."""
    sample = random_sample(pipeline, settings, settings.batch).to(pipeline.device)
    return sample, pipeline.conditioner(sample.features)


def noise_and_conditions(pipeline: Pipeline, settings: Sizes) -> tuple[Tensor, Cond, Cond]:
    """What `Pipeline.stream` begins with, from seed 0: noise (B, C, S, S), condition and null."""
    shape, n = pipeline.latent_shape(settings.side, settings.side), settings.pictures
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(n)])
    features = pipeline.conditioner.encode([""] * n, torch.zeros(n))
    given = {key: value.to(pipeline.device) for key, value in features.items()}
    return noise.to(pipeline.device), pipeline.conditioner(given), pipeline.conditioner.null(n)


def our_pictures(pipeline: Pipeline, settings: Sizes, steps: int, precision: Precision) -> Tensor:
    """What a user of fromnoise gets, up to the files: (B, C, S, S)."""
    prompts = [""] * settings.pictures
    stream = pipeline.stream(
        prompts, steps, settings.guidance, 0, settings.side, sampler="euler", shift=1.0, precision=precision
    )
    return deque(stream, maxlen=1)[0].x
