"""A part in a process of its own: what breaks or hangs there, a device in a state that nothing mends, ends no other."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

from benchmarks.gpu.notes import Notes
from benchmarks.gpu.settings import PARTS, Settings

GRACE = 15.0  # seconds that a part may take beyond its own: to import torch, and to end what it began last


def run(name: str, settings: Settings, seconds: float) -> None:
    """Measure a part in this process, in so many seconds or a little more; the record has to be there."""
    notes = Notes(settings.out, name, seconds)
    notes.attempt(PARTS[name].about, lambda: import_module(PARTS[name].module).measure(settings, notes))
    notes.end()


def run_apart(name: str, settings: Settings, seconds: float) -> bool:
    """The same in a process of its own; whether it ended by itself and well. It is ended where it takes too long."""
    command = [sys.executable, "-m", __spec__.name, name, str(seconds), settings.model_dump_json()]
    try:
        return subprocess.run(command, timeout=seconds + GRACE).returncode == 0
    except subprocess.TimeoutExpired:
        return False


if __name__ == "__main__":
    name, seconds, settings = sys.argv[1:]
    run(name, Settings.model_validate_json(settings), float(seconds))
