"""How often a network is asked for one picture, whatever sampler and guidance draw it."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from fromnoise.core.types import Cond
from fromnoise.diffusion.predict import guided
from fromnoise.diffusion.sample import choose
from fromnoise.diffusion.target import TARGETS, largest_start
from fromnoise.diffusion.times import schedule
from fromnoise.pipeline.config import ModelConfig


def rows_of_picture(config: ModelConfig) -> int:
    """Samples that the backbone sees on the way from noise to one picture: steps, times two where they are guided,
    times what the sampler asks in a step. Counted by drawing one number with a network that counts."""
    path, target, sampling = config.path, TARGETS[config.objective.target], config.sampling
    rows = 0

    def network(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        nonlocal rows
        rows += len(x)
        return torch.zeros_like(x)

    times, one = schedule(sampling.steps, sampling.shift, largest_start(path, target)), torch.zeros(1, 1, 1, 1)
    nothing = Cond.of(torch.zeros(1, 1))
    predict = guided(network, nothing, nothing, sampling.guidance, sampling.interval, path=path, target=target)
    deque(choose(sampling.sampler, sampling.eta)(predict, one, times, path, lambda: one), maxlen=0)
    return rows
