"""environment.jsonl: where each part of a training was done, and by what; a line for each time it began or went on."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from fromnoise.core.device import has_bfloat16, pick
from fromnoise.core.files import read_lines, write_text
from fromnoise.core.machine import describe_machine, versions
from fromnoise.core.ranks import Ranks
from fromnoise.core.types import Data
from fromnoise.training.run import Run, VAERun

FILE = "environment.jsonl"
TOLD = ("step", "date", "machine", "versions", "held_out")  # by every line
HELD_OUT = 64  # pictures that tell one data set from another


def note_environment(directory: Path, step: int, device: torch.device, data: Data, processes: int = 1) -> None:
    """Add the line of a training that begins, or goes on, at `step` in `directory`; that of step 0 is the first.

    Raises:
        ValueError: one line, when it cannot be written.
    """
    file = directory / FILE
    before = file.read_text(encoding="utf-8") if step and file.is_file() else ""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    told = {"step": step, "date": now, "machine": describe_machine(device), "versions": versions()}
    told |= {"processes": processes} if processes > 1 else {}
    write_text(file, before + json.dumps(told | {"held_out": fingerprint(data)}) + "\n")


def read_environment(directory: Path) -> list[dict[str, Any]]:
    """The lines of the training in `directory`; none where they were not recorded.

    Raises:
        ValueError: one line, when one is no JSON object, or lacks what all lines tell.
    """
    lines = read_lines(directory / FILE)
    for number, line in enumerate(lines, start=1):
        missing = [key for key in TOLD if key not in line] or (
            ["its step"] if not isinstance(line["step"], int) else []
        )
        if missing:
            raise ValueError(f"{directory / FILE} is damaged: line {number} does not tell {', '.join(missing)}")
    return lines


def fingerprint(data: Data) -> str:
    """sha256 (hex) over the first `HELD_OUT` held-out pictures as they are served, their captions and classes."""
    batch = data.validation(HELD_OUT)
    digest = hashlib.sha256(json.dumps([list(batch.images.shape), batch.captions, batch.labels.tolist()]).encode())
    digest.update(batch.images.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refuse_unlike(run: Run | VAERun, data: Data, ranks: Ranks) -> None:
    """Find that all processes run the same code on the same data and alike devices; who trains alone is like himself.

    Raises:
        ValueError: one line in all of them, that names what differs and in which process.
    """
    if ranks.size == 1:
        return
    device = pick(run.training.device)
    own = {
        "fromnoise": code(),
        "packages": json.dumps(versions()),
        "settings": run.model_dump_json(exclude={"model": {"space"}}),  # which each may have measured
        "data": fingerprint(data),
        "products": f"{device.type}, bfloat16 {has_bfloat16(device)}",  # Muon's updates would be of two types
    }
    first = json.loads(ranks.agreed(json.dumps(own)))
    unlike = next((place for place, (key, value) in enumerate(own.items()) if first[key] != value), -1)
    for rank, (place,) in enumerate(ranks.every(unlike)):
        if place >= 0:
            what = list(own)[int(place)]
            raise ValueError(
                f"process {rank} has other {what} than process 0: all machines need the same code, settings, data and "
                "kind of processor"
            )


def code() -> str:
    """sha256 (hex) over the package's own files."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
