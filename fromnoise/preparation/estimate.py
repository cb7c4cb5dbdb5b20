"""What a preparation will need: disk, memory and time, from a few samples that are measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from fromnoise.core.needs import peak_memory
from fromnoise.data.shards import pack_shard
from fromnoise.preparation.encode import Encoder
from fromnoise.preparation.sources.source import Fault, Picture, Portion, Source

ROUNDS = (2, 8, 32)  # entries measured, more and more, until it takes long enough to be told; the first warms up
SECONDS = 0.5
COPIES = 5  # of a shard in memory at most: two portions on their way, one packed, and what the C library keeps freed


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
    memory = peak_memory() + int(COPIES * each * min(shard, entries))
    return Estimate(count, int(each * entries), memory, seconds)


def _measure(encoder: Encoder, entries: Sequence[Picture | Fault]) -> tuple[float, float]:
    """Seconds that entries take, and bytes that each becomes."""
    start = time.perf_counter()
    done = encoder.complete(encoder.begin(entries, lambda: None))
    took = time.perf_counter() - start
    arrays = pack_shard(encoder.layout, done.samples, done.texts)
    return took, sum(array.nbytes for array in arrays.values()) / max(len(entries), 1)
