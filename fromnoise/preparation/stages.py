"""How fast each stage of a preparation is: pictures, and the seconds that threads spent on them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
STAGES: tuple[str, ...] = ("read", "decode", "resize", "VAE", "text", "write")


class Stages:
    """Pictures that went through each stage and seconds it took, of all threads together."""

    def __init__(self) -> None:
        self.pictures = dict.fromkeys(STAGES, 0)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.lock = threading.Lock()

    def add(self, stage: str, pictures: int, seconds: float) -> None:
        """So many pictures went through `stage`, in so many seconds of one thread."""
        with self.lock:
            self.pictures[stage] += pictures
            self.seconds[stage] += seconds

    @contextmanager
    def timed(self, stage: str, pictures: int) -> Iterator[None]:
        """Inside, `pictures` go through `stage`."""
        start = time.perf_counter()
        yield
        self.add(stage, pictures, time.perf_counter() - start)

    def reading(self, entries: Iterable[T]) -> Iterator[T]:
        """The same entries; the time that each takes to come is spent reading."""
        source = iter(entries)
        while True:
            start = time.perf_counter()
            try:
                entry = next(source)
            except StopIteration:
                return
            self.add("read", 1, time.perf_counter() - start)
            yield entry

    def told(self) -> dict[str, tuple[int, float]]:
        """Pictures and seconds of each stage: what `merge` takes."""
        with self.lock:
            return {stage: (self.pictures[stage], self.seconds[stage]) for stage in STAGES}

    def merge(self, told: Mapping[str, tuple[int, float]]) -> None:
        """Add what other stages told."""
        for stage, (pictures, seconds) in told.items():
            self.add(stage, pictures, seconds)

    def rates(self) -> dict[str, float]:
        """Pictures per second of one thread at work on them, stage by stage; stages that nothing went through left
        out."""
        return {stage: count / max(took, 1e-9) for stage, (count, took) in self.told().items() if count}
