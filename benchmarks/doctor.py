"""Seconds that `fromnoise doctor` takes for every recipe, and what it finds. Writes one JSON record."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness import describe_machine, run_main, write_record
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.recipes import all_recipes

RECORD = Path(__file__).parent / "results" / "doctor.json"
USAGE = 'python -m benchmarks.doctor [RECIPE|RUN|DATA|"RECIPE --some.field VALUE" ...] [--out FILE]'
DESCRIPTION = """\
Runs `fromnoise doctor` in a fresh process for every recipe, and for what else is named; only what is named where
something is.
"""


class Settings(Config):
    """Where the record goes."""

    out: Path = RECORD
    """File of the record; what it tells of others is kept."""


def measure(name: str) -> dict[str, Any]:
    """Seconds of the whole command, by the clock and of the processor, which other work does not lengthen; how many
    checks there were, and what was found or left out."""
    start, before = time.perf_counter(), children()
    command = [sys.executable, "-m", "fromnoise.cli.main", "doctor", *shlex.split(name), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, used = time.perf_counter() - start, children() - before
    if done.returncode not in (0, 1):
        raise ValueError(f"fromnoise doctor {name}: {done.stderr.strip().splitlines()[-1]}")
    told = json.loads(done.stdout)
    kinds = {level: [one for one in told["findings"] if one["level"] == level] for level in ("wrong", "left out")}
    return {
        "command": f"fromnoise doctor {name} --json",
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "checks": len(told["findings"]),
        "findings": {one["name"]: one["number"] for one in kinds["wrong"]},
        "left_out": {one["name"]: one["why"] for one in kinds["left out"]},
        "absent": told["absent"],
        "smaller": told["smaller"],
        "numbers": {one["name"]: one["number"] for one in told["findings"] if one["level"] == "fine"},
    }


def children() -> float:
    """Seconds of processor time that processes begun here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    say = Console(stderr=True, highlight=False).print
    kept = json.loads(settings.out.read_text(encoding="utf-8"))["examined"] if words and settings.out.is_file() else {}
    machine = describe_machine()
    for name in words or all_recipes():
        kept[name] = measure(name)
        found = ", ".join(f"{key}: {number}" for key, number in kept[name]["findings"].items())
        took = f"{kept[name]['seconds']:.1f} s, {kept[name]['processor_seconds']:.1f} s of a core"
        say(f"{name}: {took}, {kept[name]['checks']} checks, {found or 'nothing wrong'}")
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.doctor", *args]),
            "machine": machine,
            "slowest_seconds": max(one["seconds"] for one in kept.values()),
            "slowest_processor_seconds": max(one["processor_seconds"] for one in kept.values()),
            "examined": kept,
        }
        write_record(settings.out, record)  # each time, so that what was measured is never lost


if __name__ == "__main__":
    run_main(main)
