"""One process at a time works in a directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def alone(directory: Path, does: str, mark: str) -> Iterator[None]:
    """Inside, no other process does so in `directory`, which is made where it is not there. A killed process lets go.

    does: what another one would be told to do there, "trains". mark: the name of the file without which a directory
    that was made was made for nothing: it is gone afterwards.

    Raises:
        ValueError: one line, when another process does, or when the directory cannot be made.
    """
    made = not directory.exists()
    lock = FileLock(directory / LOCK)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process {does} in {directory}; stop it, or choose another directory") from None
    except OSError as error:
        raise ValueError(f"cannot make {directory}: {error.strerror}") from None
    try:
        yield
    finally:
        if made and not (directory / mark).exists():
            with suppress(PermissionError):  # Windows removes no file that is open: there it stays
                (directory / LOCK).unlink()
                directory.rmdir()
        lock.release()
