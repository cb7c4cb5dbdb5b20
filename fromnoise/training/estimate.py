"""What a training will need, told before its first step: disk, memory and time, from a step that is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from fromnoise.core.needs import peak_memory, refuse_full, size
from fromnoise.training.fast import Choices, seconds_of
from fromnoise.training.log import duration
from fromnoise.training.run import AdamW, TrainingBase
from fromnoise.training.trainee import Model, Trainee

BYTES = 4  # of a number in float32


def tell_needs(trainee: Trainee, model: Model, choices: Choices, directory: Path, say: Callable[[str], None]) -> None:
    """Tell what the steps planned need, validation and previews left out; gradients are left at zero.

    Raises:
        ValueError: one line, when the disk has no room for the checkpoints.
    """
    training: TrainingBase = trainee.run.training
    sample = trainee.trial(model, choices.batch).to(model.device)
    seconds = training.steps * seconds_of(model, sample, training.accumulate, choices.dtype, 1)
    count = sum(p.numel() for p in model.parameters())
    moments = 2 if isinstance(training.optimizer, AdamW) else 1  # of most parameters
    disk = (training.keep + 1) * count * BYTES * (2 + moments)  # weights, their average, moments; one more is written
    held = count * BYTES * moments  # what the optimizer is still to take
    memory = torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else peak_memory()
    say(
        f"{training.steps:,} steps of {choices.batch} need about {duration(seconds)}, {size(memory + held)} of memory "
        f"and {size(disk)} on disk"
    )
    refuse_full(directory, disk, "a lower training.keep or a smaller model")
