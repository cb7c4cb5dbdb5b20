"""Whether a step fits into a device's memory, and what to change where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fromnoise.core.chips import CHIPS, spelt
from fromnoise.core.needs import size
from fromnoise.training.fast import SPARE_MEMORY


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
    """There, too: what the allocator holds back, libraries keep for themselves, and the compiler."""
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
    memory_of: Callable[[int], Memory],
    batch: int,
    accumulate: int,
    room: int,
    name: str,
    processes: int = 1,
) -> Verdict:
    """Whether `memory` fits into `room` bytes of the device `name`, and what to do.

    memory_of: what a step holds whose batch has as many parts; it falls with the parts on a straight line, less what
    does not hang on them. batch: of each of as many `processes`.
    """
    limit = (1 - SPARE_MEMORY) * room
    if memory.total <= limit:
        return Verdict(True, "")
    short = f"{size(memory.total)} of the {size(limit)} that {name} can give"
    least = memory_of(batch)
    if least.total > limit:
        larger = [spelt(one) for one, chip in CHIPS.items() if least.total <= (1 - SPARE_MEMORY) * chip.memory * 2**30]
        others = f", or --device {' or '.join(larger)}" if larger else ""
        return Verdict(False, f"{short}; not even one picture at a time fits: choose a smaller model or size{others}")
    for parts in (parts for parts in range(accumulate + 1, batch + 1) if batch % parts == 0):
        share = (batch // parts - 1) / max(batch // accumulate - 1, 1)
        if least.total + share * (memory.total - least.total) <= limit and memory_of(parts).total <= limit:
            break
    else:
        parts = batch
    most = processes * max(1, batch // parts)
    return Verdict(False, f"{short}; --training.accumulate {parts} fits, or --training.batch {most}")
