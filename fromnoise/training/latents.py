"""What latents are moved and scaled by: measured once, on training pictures, and recorded with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from fromnoise.core.device import pick
from fromnoise.core.types import Data
from fromnoise.training.run import Run, read_run

PICTURES, PART = 256, 8  # that are looked at, and at a time


def recorded_space(run: Run, *directories: Path | None) -> Run:
    """`run` with what its space leaves out as the run in the first of `directories` that holds one has it.

    A training that goes on thus measures nothing, and another device's rounding makes no other run of it; and weights
    that are taken over see what they were trained on.
    """
    records = [place / "run.yaml" for place in directories if place and (place / "run.yaml").is_file()]
    if not records:
        return run
    recorded = read_run(records[0])
    if not isinstance(recorded, Run):  # which is found to be another run, and told
        return run
    there, here = dict(recorded.model.space), dict(run.model.space)
    return _with_space(run, {key: there.get(key) for key, value in here.items() if value is None})


def measured_space(run: Run, data: Data, say: Callable[[str], None]) -> Run:
    """`run` with what its space leaves out measured on training pictures of `data`, and told.

    Raises:
        ValueError: one line, as `SpaceConfig.measured`.
    """
    space = run.model.space.measured(_pictures(data, say), pick(run.training.device), say)
    return _with_space(run, dict(space))


def _with_space(run: Run, fields: dict[str, object]) -> Run:
    space = run.model.space.model_copy(update=fields)
    return run.model_copy(update={"model": run.model.model_copy(update={"space": space})})


def _pictures(data: Data, say: Callable[[str], None]) -> Iterator[Tensor]:
    """Batches (B, C, H, W) of training pictures."""
    told = time.monotonic()
    for step in range(PICTURES // PART):
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say(f"latents of {step * PART} of {PICTURES} training pictures measured")
        yield data.train(step, PART).images
