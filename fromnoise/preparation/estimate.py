"""What a preparation will need: disk, memory and time, from a few samples that are measured."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fromnoise.data.shards import pack_shard
from fromnoise.preparation.encode import Encoder
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source

ROUNDS = (2, 8, 32)  # entries measured, more and more, until it takes long enough to be told; the first warms up
SECONDS = 0.5
COPIES = 5  # of a shard in memory at most: two portions on their way, one packed, one serialised, one put in order


class Estimate(NamedTuple):
    """What is needed for the entries that are left."""

    measured: int
    """Entries that it was measured on."""
    disk: int
    """Bytes."""
    memory: int
    """Bytes of the process at most."""
    seconds: float


def estimate(encoder: Encoder, source: Source, portions: Sequence[Portion], entries: int, shard: int) -> Estimate:
    """What `entries` of `portions` need, of which a shard has at most `shard`."""
    start = time.perf_counter()
    first = list(islice(source.read(portions[0]), ROUNDS[-1]))
    reading = (time.perf_counter() - start) / max(len(first), 1)
    took, each, count = 0.0, 0.0, 0
    for count in ROUNDS:
        took, each = _measure(encoder, first[:count])
        if took > SECONDS and count > ROUNDS[0]:
            break
    count = min(count, len(first))
    seconds = entries * (reading + took / max(count, 1))
    memory = _peak() + int(COPIES * each * min(shard, entries))
    return Estimate(count, int(each * entries), memory, seconds)


def _measure(encoder: Encoder, entries: Sequence[Picture | Fault]) -> tuple[float, float]:
    """Seconds that entries take, and bytes that each becomes."""
    start = time.perf_counter()
    done = encoder.complete(encoder.begin(entries, lambda: None))
    took = time.perf_counter() - start
    arrays = pack_shard(encoder.layout, done.samples, done.texts)
    return took, sum(array.nbytes for array in arrays.values()) / max(len(entries), 1)


def refuse_full(directory: Path, need: int) -> None:
    """Find that the disk of `directory` has room for `need` bytes.

    Raises:
        ValueError: one line.
    """
    free = shutil.disk_usage(directory).free
    if need > free:
        raise ValueError(
            f"{directory} needs about {size(need)}, and its disk has {size(free)} free; choose another disk, a smaller "
            "size or fewer pictures"
        )


def size(count: float) -> str:
    """Bytes as people read them: 3.2 GiB."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{count:,.0f} {units[0]}" if count >= 100 or units[0] == "bytes" else f"{count:.1f} {units[0]}"


def _peak() -> int:
    """Bytes of memory that this process had at most."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
