"""environment.jsonl: where each part of a training was done, and by what; a line for each time it began or went on."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

import torch

from fromnoise.core.files import write_text
from fromnoise.core.machine import describe_machine, versions
from fromnoise.core.types import Data

FILE = "environment.jsonl"
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


def fingerprint(data: Data) -> str:
    """sha256 (hex) over the first `HELD_OUT` held-out pictures as they are served, their captions and classes."""
    batch = data.validation(HELD_OUT)
    digest = hashlib.sha256(json.dumps([list(batch.images.shape), batch.captions, batch.labels.tolist()]).encode())
    digest.update(batch.images.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
