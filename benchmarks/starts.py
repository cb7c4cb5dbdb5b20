"""How soon fromnoise is there: its help, its import, and the first step of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fromnoise.core.files import read_lines

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "fromnoise.cli.main"]
FIRST_STEP = ["train", "shapes", "--training.log_every", "1", "--training.device", "cpu"]
"""A training that tells of each step."""


def starts(rounds: int, compile: bool) -> dict[str, list[float]]:
    """Seconds of each start, of processes of their own; with `compile` also of one training that compiles, by a
    compiler that remembers nothing."""
    ways = {
        "fromnoise --help": lambda: finished([*COMMAND, "--help"]),
        "import fromnoise": lambda: finished([sys.executable, "-c", "import fromnoise"]),
        "fromnoise.load()": lambda: finished([sys.executable, "-c", "import fromnoise; fromnoise.load()"]),
        "first step, eager": lambda: first_step(["--training.compile", "off"]),
    }
    seconds = {what: [start() for _ in range(rounds)] for what, start in ways.items()}
    if compile:
        seconds["first step, compiled"] = [first_step(["--training.compile", "on"])]
    return seconds


def environment(place: str) -> dict[str, str]:
    """This one's, with this package, and a compiler's memory of its own."""
    return os.environ | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": place}


def finished(command: Sequence[str]) -> float:
    """Seconds until the process has ended."""
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        subprocess.run(command, env=environment(place), cwd=place, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began


def first_step(options: Sequence[str]) -> float:
    """Seconds from the command until the first step of the shapes recipe is told of; then it is stopped."""
    quiet = subprocess.DEVNULL
    with tempfile.TemporaryDirectory() as place:
        metrics = Path(place) / "run" / "metrics.jsonl"
        command = [*COMMAND, *FIRST_STEP, *options, "--directory", str(metrics.parent)]
        began = time.perf_counter()
        with subprocess.Popen(command, env=environment(place), cwd=place, stdout=quiet, stderr=quiet) as process:
            while not any("loss" in line for line in read_lines(metrics)):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended before its first step")
                time.sleep(0.01)
            seconds = time.perf_counter() - began
            process.send_signal(signal.SIGTERM)
        return seconds
