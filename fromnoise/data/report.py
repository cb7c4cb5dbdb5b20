"""How data sets tell the user what they read."""

from __future__ import annotations

import sys


def to_stderr(line: str) -> None:
    """Tell the user, without mixing with what a command prints as its result."""
    print(line, file=sys.stderr, flush=True)
