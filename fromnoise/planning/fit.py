"""Whether a step fits into a device's memory, and what to change where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fromnoise.core.chips import CHIPS, spelt
from fromnoise.core.needs import size
from fromnoise.training.fast import SPARE_MEMORY
from fromnoise.training.run import TrainingBase


class Memory(NamedTuple):
    """Bytes at the moment of a step when most are held."""

    weights: int
    gradients: int
    """Those there are at that moment."""
    moments: int
    """Of the optimizer."""
    average: int
    """The weights' (EMA)."""
    activations: int
    """What the backward keeps, and what comes and goes."""
    frozen: int
    """VAE and text encoders."""
    program: int
    """On a CPU, where memory is shared with it: Python, PyTorch and the data."""
    overhead: int
    """There, too: what the allocator holds back, libraries keep for themselves, and the compiler; of several processes
    a checkpoint that is being written."""
    gathered: int = 0
    """Of several processes: what is gathered from others, or summed with them."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def told(self) -> dict[str, int]:
        """By name; what is gathered only where anything is."""
        return {name: size for name, size in self._asdict().items() if name != "gathered" or size}


class Verdict(NamedTuple):
    """What comes of it."""

    fits: bool
    """With a tenth of the memory left free."""
    remedy: str
    """What to change; "" where it fits."""


def fitting(
    memory: Memory,
    memory_of: Callable[[int, bool], Memory],
    training: TrainingBase,
    room: int,
    name: str,
    processes: int = 1,
) -> Verdict:
    """Whether `memory`, of a step of `training`, fits into `room` bytes of the device `name`, and what to do.

    memory_of: what a step holds whose batch has as many parts, and whose blocks are computed again or not. processes:
    those that share the batch; each has `room`.
    """
    batch, accumulate, limit = training.batch // processes, training.accumulate, (1 - SPARE_MEMORY) * room
    if memory.total <= limit:
        return Verdict(True, "")
    parts = _parts(lambda parts: memory_of(parts, training.recompute).total, batch, accumulate, limit)
    if parts:
        also = ", or --training.recompute true" if memory_of(accumulate, True).total <= limit else ""
        remedy = f"--training.accumulate {parts} fits, or --training.batch {processes * max(1, batch // parts)}{also}"
    elif again := _parts(lambda parts: memory_of(parts, True).total, batch, accumulate, limit):
        also = f" --training.accumulate {again}" if again > accumulate else ""
        remedy = f"--training.recompute true{also} fits"
    else:
        least = memory_of(batch, training.recompute).total
        larger = [spelt(one) for one, chip in CHIPS.items() if least <= (1 - SPARE_MEMORY) * chip.memory * 2**30]
        others = f", or --device {' or '.join(larger)}" if larger else ""
        remedy = f"not even one picture at a time fits: choose a smaller model or size{others}"
    return Verdict(False, f"{size(memory.total)} of the {size(limit)} that {name} can give; {remedy}")


def _parts(bytes_of: Callable[[int], int], batch: int, accumulate: int, limit: float) -> int | None:
    """The fewest parts of a batch, `accumulate` or more, of which one fits; None where not even one picture does.

    bytes_of: what a step holds of so many; it falls with the parts on a straight line, less what does not hang on them.
    """
    most, least = bytes_of(accumulate), bytes_of(batch)
    if most <= limit:
        return accumulate
    if least > limit:
        return None
    for parts in (parts for parts in range(accumulate + 1, batch) if batch % parts == 0):
        share = (batch // parts - 1) / (batch // accumulate - 1)
        if least + share * (most - least) <= limit and bytes_of(parts) <= limit:
            return parts
    return batch
