"""The way from noise to pictures, step by step. Legend: B batch, C channels, H height, W width, N steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fromnoise.diffusion.target import TARGETS, largest_start
from fromnoise.diffusion.times import schedule
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.subject import Ask


class Trace(NamedTuple):
    """Where samples were and what the network expected there."""

    times: Tensor  # (N + 1,) falling to 0
    x: Tensor  # (N + 1, B, C, H, W): x_t at each time, the noise first, the pictures last
    x0: Tensor  # (N + 1, B, C, H, W): the x0 expected from it; at the end x itself


def times_of(config: ModelConfig, steps: int, shift: float | None = None) -> Tensor:
    """The times at which a sampler of `steps` steps stands, (N + 1,)."""
    start = largest_start(config.path, TARGETS[config.objective.target])
    return schedule(steps, config.sampling.shift if shift is None else shift, start)


def trace(
    pipeline: Pipeline,
    asks: Sequence[Ask],
    seed: int,
    steps: int,
    *,
    guidance: float | None = None,
    sampler: str | None = None,
    shift: float | None = None,
    eta: float | None = None,
) -> Trace:
    """Draw one picture of each of `asks` and keep all of the way. What is None is as the model has it."""
    config = pipeline.config
    prompts, labels = [ask.prompt for ask in asks], [ask.label for ask in asks]
    stream = pipeline.stream(
        prompts, steps, guidance, seed, sampler=sampler, shift=shift, eta=eta, labels=labels, precision="float32"
    )
    done = list(stream)
    times = times_of(config, steps, shift)  # (N + 1,)
    noise = torch.stack(  # (B, C, H, W): a picture's noise is a function of its seed
        [
            torch.randn(pipeline.latent_shape(config.size, config.size), generator=torch.Generator().manual_seed(s))
            for s in range(seed, seed + len(asks))
        ]
    )
    start = config.path(times[:1]).sigma * noise  # (B, C, H, W)
    x = torch.stack([start, *(step.x.cpu() for step in done)])  # (N + 1, B, C, H, W)
    return Trace(times, x, torch.stack([*(step.x0.cpu() for step in done), x[-1]]))
