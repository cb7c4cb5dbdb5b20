"""What a check says."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["fine", "wrong", "left out"]


class Finding(NamedTuple):
    """What was examined, and what came of it."""

    name: str
    level: Level
    number: str
    """What was measured, with its unit; "" where nothing could be."""
    why: str
    """Why it matters; of what was left out, why it was."""
    remedy: str
    """What to do where it is wrong."""


def judged(name: str, fine: bool, number: str, why: str, remedy: str) -> Finding:
    """What was measured, fine or wrong."""
    return Finding(name, "fine" if fine else "wrong", number, why, remedy)


def left_out(name: str, why: str) -> Finding:
    """What could not be examined."""
    return Finding(name, "left out", "", why, "")
