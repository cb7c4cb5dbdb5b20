"""One process at a time trains in a directory, and says there which one it is. Free of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from fromnoise.core.files import write_text
from fromnoise.core.lock import LOCK, alone

HOLDER = ".pid"


class Holder(NamedTuple):
    """A process that trains."""

    pid: int
    host: str  # name of its machine: a directory may be one of several machines

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == platform.node()


@contextmanager
def trained_alone(directory: Path) -> Iterator[None]:
    """As `core.lock.alone`, for a training, which says there which process it is."""
    with alone(directory, "trains", "run.yaml"):
        try:
            write_text(directory / HOLDER, f"{os.getpid()} {platform.node()}")
            yield
        finally:
            (directory / HOLDER).unlink(missing_ok=True)


def holder(directory: Path) -> Holder | None:
    """What trains in `directory`; None where nothing does, as where a killed process has left its name."""
    try:
        pid, _, host = (directory / HOLDER).read_text(encoding="utf-8").partition(" ")
        with FileLock(directory / LOCK).acquire(timeout=0):
            return None
    except FileNotFoundError:
        return None
    except (Timeout, PermissionError):  # one of another account, whose lock none but that one opens
        return Holder(int(pid), host)
