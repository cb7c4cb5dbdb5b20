"""The arithmetic of what a training needs: disk, memory and time. `train` tells it before its first step, and
`fromnoise plan` without any."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from fromnoise.core.device import autocast
from fromnoise.core.needs import peak_memory, refuse_full, size
from fromnoise.training.fast import Choices
from fromnoise.training.log import duration
from fromnoise.training.optim import Optimizer, shared
from fromnoise.training.parallel import SINGLE, Parallel
from fromnoise.training.prefetch import workers
from fromnoise.training.run import AdamW, Muon, TrainingBase
from fromnoise.training.step import accumulate_gradients, clip_gradients
from fromnoise.training.trainee import Looks, Model, Sample, Trainee

BYTES = 4  # of a number in float32
PNG = 0.6  # share of its raw bytes that a picture takes on disk, about
CAPTION = 4096  # bytes that its words take there, about
LOOKED_AT = 32  # samples of a forward that is timed without gradients


class Resident(NamedTuple):
    """Bytes that are held from the first step to the last."""

    weights: int
    average: int
    moments: int


class Left(NamedTuple):
    """How often what comes now and then still comes."""

    steps: int
    validations: int
    previews: int
    checkpoints: int


class Pace(NamedTuple):
    """Seconds, as measured or assumed."""

    step: float
    """Of an optimizer step, with its data."""
    row: float
    """Of a forward of one sample without gradients."""


class Spent(NamedTuple):
    """Seconds of a training."""

    steps: float
    validations: float
    previews: float
    end: float
    """What comes after the last step."""


class Disk(NamedTuple):
    """Bytes of a run's directory."""

    checkpoints: int
    """Those kept, and one more that is being written."""
    previews: int


def resident(model: nn.Module, optimizer: AdamW | Muon) -> Resident:
    """What weights (float32), their average and the optimizer hold: one moment of what Muon takes, two of the rest."""
    inside, rest = (sum(p.numel() for p in part.values()) for part in shared(model, optimizer))
    weights = BYTES * (inside + rest)
    return Resident(weights, weights, BYTES * (inside + 2 * rest))


def left(training: TrainingBase, done: int) -> Left:
    """What is left after `done` steps; a validation also comes before the first."""

    def times(every: int) -> int:
        return training.steps // every - done // every + (training.steps % every != 0 and done < training.steps)

    first = int(done == 0)
    every = (training.validate_every, training.preview_every, training.save_every)
    validations, previews, checkpoints = map(times, every)
    return Left(training.steps - done, first + validations, previews, checkpoints)


def spent(ahead: Left, pace: Pace, looks: Looks) -> Spent:
    """Seconds of all that is left."""
    return Spent(
        ahead.steps * pace.step,
        ahead.validations * looks.validation * pace.row,
        ahead.previews * looks.preview * pace.row,
        looks.end * pace.row,
    )


def disk(training: TrainingBase, held: Resident, previews: int, looks: Looks, picture: int) -> Disk:
    """What a run's directory takes at most. previews: how many there will be. picture: values of one (C H W)."""
    kept = min(training.keep + 1, left(training, 0).checkpoints)
    return Disk(kept * sum(held), previews * looks.pictures * int(PNG * picture + CAPTION))


class Step(NamedTuple):
    """Seconds of an optimizer step."""

    learn: float
    """Of the forward and backward of a batch."""
    update: float
    """Of what the gradient does to the weights."""


def measure_step(
    trainee: Trainee,
    model: Model,
    sample: Sample,
    parts: int,
    dtype: torch.dtype | None,
    repeats: int,
    parallel: Parallel = SINGLE,
) -> Step:
    """A step on `sample`, as it runs here now: the best of `repeats`, after one that does not count.

    Weights stay what they are, to the last bit; gradients are left at zero.
    """
    training: TrainingBase = trainee.run.training
    optimizer, best = Optimizer(model, training.optimizer, parallel), Step(float("inf"), float("inf"))
    for trial in range(repeats + 1):
        start = time.perf_counter()
        accumulate_gradients(model, sample, parts, dtype).sum().item()  # .item() waits for the device
        learned = time.perf_counter()
        clip_gradients(model, training.clip, parallel)
        optimizer.step(0.0)  # at a learning rate of 0 it does all its work and moves nothing
        _wait(model)
        now = time.perf_counter()
        if trial:
            best = Step(min(best.learn, learned - start), min(best.update, now - learned))
        model.zero_grad()
    return best


def measure_pace(
    trainee: Trainee,
    model: Model,
    batch: int,
    dtype: torch.dtype | None,
    rows: int | None = None,
    repeats: int = 1,
    parallel: Parallel = SINGLE,
) -> Pace:
    """The pace of batches of `batch`, as it is here now, measured on `rows` held-out pictures (left out, on a batch of
    them); weights and gradients as in `measure_step`."""
    rows, parts = rows or batch, trainee.run.training.accumulate if rows in (None, batch) else 1
    start = time.perf_counter()
    sample = trainee.trial(model, rows)
    data = time.perf_counter() - start
    sample = sample.to(model.device)
    step = measure_step(trainee, model, sample, parts, dtype, repeats, parallel)
    few = sample.rows(0, min(LOOKED_AT, rows))
    forward = min(_forward_seconds(model, few, dtype) for _ in range(2)) / few.size
    scale = batch / rows
    return Pace(with_data(step.learn * scale + step.update, data * scale, model), forward)


def with_data(step: float, data: float, model: Model) -> float:
    """Seconds of a step whose sample takes `data` seconds of one core: made meanwhile, where a core is left for it."""
    busy = torch.get_num_threads() if model.device.type == "cpu" else 0
    if busy >= (os.cpu_count() or 1):
        return step + data / busy
    return max(step, data / workers(model.device))


def _wait(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


@torch.no_grad()
def _forward_seconds(model: Model, sample: Sample, dtype: torch.dtype | None) -> float:
    start = time.perf_counter()
    with autocast(model.device, dtype), torch.compiler.set_stance("force_eager"):
        model.loss(*sample).sum().item()
    return time.perf_counter() - start


def tell_needs(
    trainee: Trainee,
    model: Model,
    choices: Choices,
    directory: Path,
    say: Callable[[str], None],
    parallel: Parallel = SINGLE,
) -> None:
    """Tell what the steps planned need, validation and previews included; gradients are left at zero.

    Raises:
        ValueError: one line, when the disk has no room for what is written.
    """
    training: TrainingBase = trainee.run.training
    ahead, looks, held = left(training, 0), trainee.looks(), resident(model, training.optimizer)
    share = choices.batch // parallel.ranks.size
    pace = measure_pace(trainee, model, share, choices.dtype, parallel=parallel)
    height, width = trainee.data.image_shape[1:]
    needed = sum(disk(training, held, ahead.previews, looks, trainee.data.image_shape[0] * height * width))
    seconds = sum(spent(ahead, pace, looks))
    memory = torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else peak_memory()
    say(
        f"{ahead.steps:,} steps of {choices.batch} need about {duration(seconds)}, validations ({ahead.validations}) "
        f"and previews ({ahead.previews}) among it, {size(memory)} of memory and {size(needed)} on disk"
    )
    refuse_full(directory, needed, "a lower training.keep or a smaller model")
