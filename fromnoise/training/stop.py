"""Ctrl-C and SIGTERM: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

ASKED = [signal.SIGINT, signal.SIGTERM]
if sys.platform == "win32":  # where SIGTERM ends a process at once, and asks nothing
    ASKED.append(signal.SIGBREAK)


AT_ONCE = 1.0  # seconds in which several signals are one: Slurm's reaches all processes, and torchrun passes its own on


class Stop:
    """Inside this context the first signal of `ASKED` only sets `signal`; one that comes later ends the program."""

    def __init__(self) -> None:
        self.signal = 0
        self.since = 0.0
        self.before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        # Python takes signals in the main thread only; a training in another one is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in ASKED}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            if time.monotonic() - self.since > AT_ONCE:
                raise SystemExit(128 + number)
            return
        self.signal, self.since = number, time.monotonic()
        os.write(2, b"\nfinishing the step and saving it; once more stops at once\n")  # print() may be under way
