"""Work done ahead of time, by threads, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def ahead(make: Callable[[int], T], steps: Iterable[int], workers: int) -> Generator[T, None, None]:
    """`make(step)` of each step, in order, while `workers` threads make the next ones.

    `make` must be a pure function of the step. What it raises is raised here, at its step. Threads end when the
    generator is closed.
    """
    threads = torch.get_num_threads()
    pending: deque[Future[T]] = deque()
    # One core for each thread, so that they do not take turns with the cores of the training step.
    with ThreadPoolExecutor(workers, "prefetch", torch.set_num_threads, (1,)) as pool:
        try:
            for step in steps:
                pending.append(pool.submit(make, step))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            torch.set_num_threads(threads)  # what threads started later begin with


def workers(device: torch.device) -> int:
    """Threads that make samples: one where they share the cores with the training itself."""
    return 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
