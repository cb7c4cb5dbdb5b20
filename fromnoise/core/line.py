"""The line that a user watches during long work."""

from __future__ import annotations

import sys
import time

SECONDS = 10.0  # between lines where there is no terminal to rewrite one on


def quiet(text: str) -> None:
    """In place of `Line.say`, where nobody is to be told."""


class Line:
    """Rewritten in place on a terminal, printed now and then elsewhere; on stderr."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.shown = ""
        self.printed = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to show how far the work has come."""
        return time.monotonic() - self.printed > (0.1 if self.terminal else SECONDS)

    def show(self, text: str) -> None:
        """Tell how far the work has come."""
        self.printed = time.monotonic()
        if self.terminal:
            print("\r" + text.ljust(len(self.shown)), end="", file=sys.stderr, flush=True)
            self.shown = text
        else:
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.shown:
            print("\r" + " " * len(self.shown) + "\r", end="", file=sys.stderr)
            self.shown = ""
        self.printed = time.monotonic()
        print(text, file=sys.stderr, flush=True)
