"""What a GPU makes of fromnoise, in under nine minutes: `python -m benchmarks.gpu`. See docs/gpu.md."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.gpu.notes import file_of, read
from benchmarks.gpu.part import GRACE, run_apart
from benchmarks.gpu.settings import PARTS, Settings
from benchmarks.gpu.table import faults, table
from benchmarks.harness import describe_machine, run_main, write_record
from fromnoise.cli.flags import parse
from fromnoise.cli.progress import say
from fromnoise.core.device import pick

LEAST = 5.0  # seconds in which a part can begin at all
USAGE = "python -m benchmarks.gpu [--option VALUE ...]"
DESCRIPTION = """\
Is fromnoise right on this GPU, how fast is it, and does it train there? Compares the GPU with the CPU; trains and draws
by Qwen-Image's network of 258M parameters, beside diffusers' class of the same size where diffusers is installed;
measures Stable Diffusion's U-Net and VAE; and trains two recipes from nothing. Writes gpu.json, after every finding,
and pictures into a directory, and prints a table. Without a GPU it says so.
"""


def begin(settings: Settings, args: Sequence[str]) -> None:
    """Write a record that has no findings yet."""
    record = {
        "command": " ".join(["python -m benchmarks.gpu", *args]),
        "machine": describe_machine(),
        "settings": settings.model_dump(mode="json", exclude={"out"}),
        "parts": {},
    }
    write_record(file_of(settings.out), record)


def measure(settings: Settings) -> None:
    """All parts, one after the other, each in its own time and what is left of the whole."""
    ends = time.monotonic() + settings.seconds
    for name in settings.parts:
        seconds = min(getattr(settings, name).seconds, ends - time.monotonic() - GRACE)
        if seconds < LEAST:
            say(f"{name} is left out: no time is left")
            amend(settings, name, "left out")
            continue
        say(f"{name}: {PARTS[name].about}, in about {seconds:.0f} s")
        if not run_apart(name, settings, seconds):
            say(f"{name} was cut off, or broke")
            amend(settings, name, "cut off")


def amend(settings: Settings, name: str, state: str) -> None:
    """Note what became of a part that could not say so itself."""
    record = read(settings.out)
    nothing = {"checks": [], "failures": [], "left_out": []}
    record["parts"][name] = nothing | record["parts"].get(name, {}) | {"state": state}
    write_record(file_of(settings.out), record)


def main(args: Sequence[str]) -> None:
    default = Settings(out=Path(os.environ.get("OUT", "build/gpu")))
    settings, words = parse(default, args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is here, so nothing is measured")
        return
    pick(settings.device)  # refuses one that is not there
    begin(settings, args)
    measure(settings)
    record = read(settings.out)
    Console(width=max(Console().width, 110)).print(table(record))
    print(f"record and pictures: {settings.out}")
    if faults(record):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
