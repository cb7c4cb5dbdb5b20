"""The way from noise to pictures, step by step. Legend: B batch, C channels, H height, W width, N steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fromnoise.diffusion.sample import Step
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


class Place(NamedTuple):
    """A place on the way."""

    time: float  # t
    x: Tensor  # (B, C, H, W): x_t
    x0: Tensor  # (B, C, H, W): the x0 expected from it; at the end x itself


def way(
    pipeline: Pipeline,
    asks: Sequence[Ask],
    seed: int,
    steps: int,
    *,
    guidance: float | None = None,
    sampler: str | None = None,
    shift: float | None = None,
    eta: float | None = None,
    size: tuple[int, int] | None = None,
    precision: Literal["auto", "float32"] = "float32",
) -> Iterator[Place]:
    """Draw one picture of each of `asks`: the N + 1 places on the way, as they are reached. What is None is as the
    model has it; errors as in `Pipeline.stream`, before the first place."""
    config = pipeline.config
    prompts, labels = [ask.prompt for ask in asks], [ask.label for ask in asks]
    stream = pipeline.stream(
        prompts, steps, guidance, seed, size, sampler=sampler, shift=shift, eta=eta, labels=labels, precision=precision
    )
    times = times_of(config, steps, shift)  # (N + 1,)
    sides = size or (config.size, config.size)
    noise = torch.stack(  # (B, C, H, W): a picture's noise is a function of its seed
        [
            torch.randn(pipeline.latent_shape(*sides), generator=torch.Generator().manual_seed(s))
            for s in range(seed, seed + len(asks))
        ]
    )
    return _places(times, config.path(times[:1]).sigma * noise, stream)


def _places(times: Tensor, x: Tensor, stream: Iterator[Step]) -> Iterator[Place]:
    """The sample before each step with what was expected of it, and the last one."""
    for time, step in zip(times.tolist(), stream, strict=False):
        yield Place(time, x, step.x0.cpu())
        x = step.x.cpu()  # (B, C, H, W)
    yield Place(float(times[-1]), x, x)


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
    """All of the way that `way` goes."""
    places = list(way(pipeline, asks, seed, steps, guidance=guidance, sampler=sampler, shift=shift, eta=eta))
    times = times_of(pipeline.config, steps, shift)  # (N + 1,)
    return Trace(times, torch.stack([place.x for place in places]), torch.stack([place.x0 for place in places]))
