"""One process at a time trains in a directory, and says there which one it is. Free of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from fromnoise.core.files import write_text

LOCK, HOLDER = ".lock", ".pid"


class Holder(NamedTuple):
    """A process that trains."""

    pid: int
    host: str  # name of its machine: a directory may be one of several machines

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == platform.node()


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Inside, no other process trains in `directory`, which is made where it is not there. A killed process lets go.

    A directory that was made for a run that nothing came of is gone afterwards.

    Raises:
        ValueError: one line, when one does, or when the directory cannot be made.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process trains in {directory}; stop it, or choose another directory") from None
    except OSError as error:
        raise ValueError(f"cannot make {directory}: {error.strerror}") from None
    try:
        write_text(directory / HOLDER, f"{os.getpid()} {platform.node()}")
        yield
    finally:
        (directory / HOLDER).unlink(missing_ok=True)
        if made and not (directory / "run.yaml").exists():
            with suppress(PermissionError):  # Windows removes no file that is open: there it stays
                (directory / LOCK).unlink()
                directory.rmdir()
        lock.release()


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
