"""Contestants that do the same work: each is tried once, then they take turns."""

from __future__ import annotations

import gc
import math
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.notes import Notes
from benchmarks.harness import ratio, seconds_of, take_turns
from fromnoise.cli.progress import say

GIB = 2**30
OURS = "fromnoise"
LEAST_ROUNDS = 3
LEAST = 5.0  # seconds in which contestants can be tried at all

Call = Callable[[], object]


def try_out(
    contestants: dict[str, Call], device: torch.device, notes: Notes
) -> tuple[dict[str, Call], dict[str, dict[str, Any]]]:
    """Those that can do their work at all, and what the first call of each took: seconds, compilation among them, and
    GiB in use at its worst moment beyond those before it. What has no room, no time or breaks is noted.

    `contestants` is left empty: who is out holds no memory.
    """
    able, told = {}, {}
    for name in list(contestants):
        call = contestants.pop(name)
        if not notes.time_for(name, notes.expected.get(name, 0.0)):
            continue
        say(f"{notes.part}: {name}")
        before = start_counting(device)
        spent = notes.attempt(name, partial(seconds_of, call, device))
        if spent is not None:
            able[name], notes.expected[name] = call, spent
            told[name] = {"first_call_seconds": spent, "gib": peak_memory(device, before)}
        del call
        release(device)
    return able, told


def contest(contestants: Mapping[str, Call], rounds: int, device: torch.device, notes: Notes) -> dict[str, list[float]]:
    """Seconds of every turn: as many rounds as asked for, or as the time allows, but at least three."""
    once = sum(seconds_of(call, device) for call in contestants.values())
    possible = max(LEAST_ROUNDS, math.floor(notes.left / 2 / max(once, 1e-9)) - 1)
    return take_turns(contestants, min(rounds, possible), device, lambda done, total: None)


def summary(seconds: Mapping[str, list[float]], images: int, first: str = OURS) -> dict[str, Any]:
    """What follows from the turns, each of so many images: images/s (medians), and how many times as fast `first` is as
    the others, round by round."""
    told: dict[str, Any] = {
        "seconds": dict(seconds),
        "images_per_second": {name: images / statistics.median(spent) for name, spent in seconds.items()},
    }
    if first in seconds:
        others = {name: ratio(seconds[first], spent)._asdict() for name, spent in seconds.items() if name != first}
        told["times_as_fast_as"] = others
    return told


def waits_of(call: Call, device: torch.device) -> dict[str, int] | None:
    """How often each line lets the processor wait for the GPU in one call; None on a CPU, which waits for itself."""
    if device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = (
        f"{Path(one.filename).name}:{one.lineno}" for one in caught if "called a synchronizing" in str(one.message)
    )
    return dict(Counter(lines))


def start_counting(device: torch.device) -> int:
    """Begin to watch the most memory in use; bytes in use now. Nothing is known of a CPU's."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_memory(device: torch.device, before: int) -> float | None:
    """GiB in use at the worst moment since, beyond those `before`."""
    return (torch.cuda.max_memory_allocated(device) - before) / GIB if device.type == "cuda" else None


def release(device: torch.device) -> None:
    """Give a GPU back what nothing holds."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
