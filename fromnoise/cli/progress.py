"""A bar on the terminal, and nothing where there is none, so that what is printed can be read by programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TOLD_EVERY = 10.0  # seconds between lines where there is no terminal


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar called `what` on stderr for as long as the context lasts; what it gives is called with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(line: str) -> None:
    """A line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def watch(what: str) -> Iterator[Callable[[int, int], None]]:
    """As `progress`, with a line now and then where there is no terminal; and how long it took."""
    began = told = time.monotonic()
    with progress(what) as bar:

        def advance(done: int, total: int) -> None:
            nonlocal told
            bar(done, total)
            if not sys.stderr.isatty() and time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                say(f"{what}: {done:,} of {total:,}")

        yield advance
    say(f"{what}: {time.monotonic() - began:.1f} s")


@contextmanager
def kept(place: Path) -> Iterator[None]:
    """Whoever stops what is inside is told that it goes on from what is kept in `place`."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"what was done is kept in {place}; the same command goes on")
        raise
