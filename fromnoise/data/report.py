"""How data sets tell the user what they read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

SECONDS = 5.0  # between two lines on how far a long work has come


def to_stderr(line: str) -> None:
    """Tell the user, without mixing with what a command prints as its result."""
    print(line, file=sys.stderr, flush=True)


def paced(report: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """What takes how many of how many are done, and reports it every few seconds as "3 of 8 `what`"."""
    told = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > SECONDS:
            told = time.monotonic()
            report(f"{done:,} of {total:,} {what}")

    return advance
