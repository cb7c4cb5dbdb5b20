"""Which directory a comparison takes where none is named: one of other runs of the same names stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from fromnoise.core.files import write_text
from fromnoise.training.run import Run

RUNS = "runs.txt"
"""In the directory: the identity of each run compared there, one a line."""


def identity(run: Run, directory: Path | None = None) -> str:
    """sha256 (hex) of what tells a run from others of its name: where it is, or its settings if it is to be trained."""
    told = str(directory.resolve()) if directory else run.model_dump_json()
    return hashlib.sha256(told.encode()).hexdigest()


def free(out: Path, runs: Collection[str]) -> Path:
    """`out`, or, where it is there and holds another run than these, that name with a hash of `runs`."""
    known = out / RUNS
    if not out.exists() or (known.is_file() and set(known.read_text(encoding="utf-8").split()) <= set(runs)):
        return out
    return out.with_name(f"{out.name}-{hashlib.sha256(' '.join(sorted(runs)).encode()).hexdigest()[:12]}")


def take(out: Path, runs: Collection[str]) -> None:
    """Write into `out` (made if need be) which runs it is of."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / RUNS, "".join(f"{run}\n" for run in sorted(runs)))
