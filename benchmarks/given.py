"""A pipeline whose text tokens are given, what it is trained on, and what it draws: for timing a backbone alone.

Legend: B batch, C channels, S side, L text tokens, D width.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from fromnoise.core.types import Batch, Cond
from fromnoise.diffusion.loss import Objective
from fromnoise.models.config import BackboneConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.step import Sample, draw, generator_of

CLASSES = 10  # asked for in turn, where a network knows classes


def by_chance(module: nn.Module) -> None:
    """Weights of which none is zero, as gates and last layers are at the start."""
    generator = generator_of(0, 4)
    for p in module.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5, generator=generator)


class Given(nn.Module):
    """A conditioner whose tokens are given, so that what is timed is the network: row i of a batch has row i.

    padded: how many of the tokens are real differs from row to row, and none but one of the row that says nothing;
    else all are, as where a pipeline lets the network read its padding.
    """

    def __init__(self, rows: int, length: int, width: int, padded: bool = True):
        super().__init__()
        generator = generator_of(0, 0)
        counts = torch.arange(rows) % max(1, length - 4) + min(5, length)  # 5 to L real tokens
        self.width, self.length, self.padded = width, length, padded
        self.mask = torch.arange(length) < (counts if padded else torch.full((rows,), length))[:, None]  # (rows, L)
        self.tokens = torch.randn(rows, length, width, generator=generator) * self.mask[..., None]  # (rows, L, D)
        self.register_buffer("nothing", torch.randn(1 if padded else length, width, generator=generator))

    def labels(self, prompts: list[str]) -> list[int]:
        return [0] * len(prompts)

    def encode(self, captions: list[str], labels: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.tokens[: len(captions)], "mask": self.mask[: len(captions)]}

    def read(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return self.encode(batch.captions, batch.labels)

    def forward(self, features: dict[str, Tensor]) -> Cond:
        return Cond(features["tokens"], features["mask"], features["tokens"].mean(1))

    def null(self, n: int) -> Cond:
        """As the package's text conditioner has it, padded to L."""
        tokens = self.get_buffer("nothing").expand(n, -1, -1)  # (n, 1 or L, D)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)  # (n, 1 or L)
        return Cond(tokens, mask, tokens.mean(1)).padded(self.length)

    def notice(self, prompts: list[str]) -> str:
        return ""


def pipeline_of(backbone: BackboneConfig, channels: int, side: int, conditioner: nn.Module) -> Pipeline:
    """The backbone in a pipeline of pictures, or latents, of so many channels and this side; it learns the flow."""
    objective = Objective(target="flow", measure="flow", dropout=0.0)
    config = ModelConfig(backbone=backbone, objective=objective, size=side, channels=channels)
    return Pipeline(config, conditioner, config.space.build())


def batch_of(pipeline: Pipeline, size: int) -> Sample:
    """The one batch that is trained on again and again, on the CPU."""
    side = pipeline.config.size
    images = torch.rand((size, pipeline.config.channels, side, side), generator=generator_of(0, 2)) * 2 - 1
    return draw(pipeline, Batch(images, [""] * size, torch.arange(size) % CLASSES), generator_of(0, 3))


def conditioned(pipeline: Pipeline, size: int) -> tuple[Sample, Cond]:
    """That batch where the model is, and its condition."""
    sample = batch_of(pipeline, size).to(pipeline.device)
    with torch.no_grad():
        return sample, pipeline.conditioner(sample.features)


@torch.no_grad()
def noise_and_conditions(pipeline: Pipeline, n: int) -> tuple[Tensor, Cond, Cond]:
    """What `Pipeline.stream` begins with, from seed 0: noise (B, C, S, S), condition and null, as long as is needed."""
    shape = pipeline.latent_shape(pipeline.config.size, pipeline.config.size)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(n)])
    features = pipeline.conditioner.encode([""] * n, torch.arange(n) % CLASSES)
    given = {key: value.to(pipeline.device) for key, value in features.items()}
    cond = pipeline.conditioner(given).trimmed()
    null = pipeline.conditioner.null(n).trimmed()
    length = max(cond.mask.shape[1], null.mask.shape[1])
    return noise.to(pipeline.device), cond.padded(length), null.padded(length)


def our_pictures(pipeline: Pipeline, n: int, steps: int, guidance: float, precision: Precision) -> Tensor:
    """What a user of fromnoise gets, up to the files: (B, C, S, S)."""
    prompts, size = [str(i % CLASSES) for i in range(n)], pipeline.config.size
    stream = pipeline.stream(prompts, steps, guidance, 0, size, sampler="euler", shift=1.0, precision=precision)
    return deque(stream, maxlen=1)[0].x
