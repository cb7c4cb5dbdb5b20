"""What every benchmark here shares: timing in turns, ratios pair by pair, the machine, and the record in JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch.profiler import ProfilerActivity, profile

from fromnoise.core.config import explain
from fromnoise.core.files import read_lines, write_text
from fromnoise.core.machine import cores, cpuinfo

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
"""Instructions that decide how fast matrix products are, as Linux names them."""


class Ratio(NamedTuple):
    """How many times as fast one contestant is as another."""

    median: float
    low: float
    high: float


def take_turns(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    advance: Callable[[int, int], None],
) -> dict[str, list[float]]:
    """Seconds of every call: A B C, A B C, ... `rounds` times, so that whatever slows the machine slows all of them.

    Each is called once before, which does not count. `advance` is called with (rounds done, rounds).
    """
    for call in contestants.values():
        seconds_of(call, device)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for done in range(1, rounds + 1):
        for name, call in contestants.items():
            seconds[name].append(seconds_of(call, device))
        advance(done, rounds)
    return seconds


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done what one call asks of it."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def allocated(call: Callable[[], object]) -> int:
    """Bytes that PyTorch's allocator has given out at most, beyond those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    kineto: Any = watched.profiler
    events = [one for one in kineto.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def ratio(ours: list[float], theirs: list[float]) -> Ratio:
    """Their seconds over ours, round by round: the median, the least and the most."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def describe_machine() -> dict[str, object]:
    """What a reader must know of this machine to compare his own with it."""
    flags = set(cpuinfo("flags").split())
    busy, _, _ = os.getloadavg()
    machine: dict[str, object] = {
        "cpu": cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "threads": torch.get_num_threads(),
        "load_before": round(busy, 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": installed("diffusers"),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
        machine["gpu_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        machine["cuda"] = torch.version.cuda
    return machine


def installed(package: str) -> str | None:
    """Its version; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def training_of(place: Path) -> dict[str, int]:
    """Steps that the run in the directory `place` took, and seconds."""
    last = [line for line in read_lines(place / "metrics.jsonl") if "seconds" in line][-1]
    return {"steps": last["step"], "seconds": round(last["seconds"])}


def run_main(main: Callable[[Sequence[str]], None]) -> None:
    """A benchmark's `main` on what the command line has; a fault of the user's is told in one line."""
    try:
        main(sys.argv[1:])
    except ValidationError as error:
        sys.exit(f"error: {explain(error)}")
    except ValueError as error:
        sys.exit(f"error: {error}")


def write_record(path: Path, record: dict[str, object]) -> None:
    """Write `record` and today's date as JSON, whole or not at all; ValueError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **record}
    write_text(path, json.dumps(dated, indent=2, ensure_ascii=False) + "\n")


def put(text: str, page: Path, mark: str = "results") -> None:
    """Put `text` into the page, between <!-- mark --> and <!-- /mark -->."""
    before, opened, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    _, closed, after = rest.partition(f"<!-- /{mark} -->")
    assert opened and closed, f"{page} has no place for {mark}"
    write_text(page, f"{before}{opened}\n{text}\n{closed}{after}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
