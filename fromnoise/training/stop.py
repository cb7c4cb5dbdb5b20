"""Ctrl-C and SIGTERM: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

ASKED = [signal.SIGINT, signal.SIGTERM]
if sys.platform == "win32":  # where SIGTERM ends a process at once, and asks nothing
    ASKED.append(signal.SIGBREAK)


class Stop:
    """Inside this context the first signal of `ASKED` only sets `signal`; the second ends the program at once."""

    def __init__(self) -> None:
        self.signal = 0
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
            raise SystemExit(128 + number)
        self.signal = number
        os.write(2, b"\nfinishing the step and saving it; once more stops at once\n")  # print() may be under way
