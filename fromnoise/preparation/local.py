"""Shards written by the threads of one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from fromnoise.preparation.encode import Encoder
from fromnoise.preparation.plan import Plan
from fromnoise.preparation.sources.source import Source


def run(encoder: Encoder, source: Source, plan: Plan, out: Path, todo: Sequence[int], tick: Callable[[], None]) -> None:
    """Write the shards `todo`: while one's captions are read and it is written, the next one's pictures are decoded."""
    with ThreadPoolExecutor(1, "write") as writer, encoder.at_work():
        pending = deque[Future[None]]()
        try:
            for i in todo:
                portion = encoder.begin(source.read(plan.portions[i]), tick)
                pending.append(writer.submit(encoder.write, portion, out / plan.shards[i]))
                if len(pending) > 1:
                    pending.popleft().result()
        except ValueError:  # a source that changed, a full disk: the shards on their way may still be written
            wait(pending)
            raise
        for future in pending:
            future.result()
