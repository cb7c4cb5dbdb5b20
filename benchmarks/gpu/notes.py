"""What a part has found so far, in the file that all parts share.

It is written anew after every finding: who is cut off leaves what was measured.
"""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.harness import write_record
from fromnoise.cli.progress import say

T = TypeVar("T")

TOLD = 3000  # characters of a fault that are kept, the last ones


def file_of(out: Path) -> Path:
    """The record in the directory `out`."""
    return out / "gpu.json"


def read(out: Path) -> dict[str, Any]:
    """What stands in it."""
    return json.loads(file_of(out).read_text(encoding="utf-8"))


class Notes:
    """The findings of `part`, which has so many `seconds`, in the record in `out`."""

    def __init__(self, out: Path, part: str, seconds: float):
        self.out, self.part, self.began, self.seconds = out, part, time.monotonic(), seconds
        self.found: dict[str, Any] = {"state": "cut off"}  # until it has ended
        self.expected: dict[str, float] = {}  # seconds that something took before, compilation among them
        for kind in ("checks", "failures", "left_out"):
            self.found[kind] = []
        self.write()

    @property
    def left(self) -> float:
        """Seconds."""
        return self.began + self.seconds - time.monotonic()

    def write(self) -> None:
        """Put all of it into the file."""
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        record = read(self.out)
        record["parts"][self.part] = self.found
        write_record(file_of(self.out), record)

    def put(self, key: str, value: Any) -> None:
        """This was measured."""
        self.found[key] = value
        self.write()

    def check(self, what: str, value: float, allowed: float) -> None:
        """This must be at most as much as is allowed; what is no number is not."""
        right = value <= allowed
        shown = value if math.isfinite(value) else str(value)  # JSON has no word for it
        self.found["checks"].append({"what": what, "value": shown, "allowed": allowed, "right": right})
        if not right:
            say(f"{self.part}: {what} is {value:.3g}; allowed: {allowed:g}")
        self.write()

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """What `call` gives; what it raises is noted, ends nothing, and gives None. To have no room is no fault."""
        try:
            return call()
        except torch.OutOfMemoryError:
            self.leave_out(what, "the device has too little memory")
            return None
        except Exception as error:
            line = next(iter(str(error).splitlines()), "")
            say(f"{self.part}: {what} failed: {type(error).__name__}: {line[:200]}")
            told = traceback.format_exc()[-TOLD:]
            self.found["failures"].append({"what": what, "error": type(error).__name__, "told": told})
            self.write()
            return None

    def time_for(self, what: str, seconds: float) -> bool:
        """Whether so many are left; what there is no time for is left out, and noted."""
        enough = self.left > seconds
        if not enough:
            self.leave_out(
                what, f"{max(self.left, 0):.0f} s of {self.seconds:.0f} s are left, it may take {seconds:.0f} s"
            )
        return enough

    def leave_out(self, what: str, why: str) -> None:
        """This is not measured."""
        say(f"{self.part}: left out: {what}: {why}")
        self.found["left_out"].append({"what": what, "why": why})
        self.write()

    def end(self) -> None:
        """All of the part is done, or was tried."""
        self.put("state", "ended")
