"""The lessons executed anew, each in a fresh kernel at full size: their outputs and the pictures of docs/lessons.md are
written, and the minutes recorded.

python -m benchmarks.lessons        # all of them; `make lessons` does the same
python -m benchmarks.lessons 1 3    # some
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from benchmarks.harness import describe_machine, write_record
from fromnoise.core.files import write_bytes, write_text

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "lessons").glob("[1-9]_*.ipynb"))
COVERS = ROOT / "docs" / "images" / "lessons"
RECORD = ROOT / "benchmarks" / "results" / "lessons.json"
MOST_BYTES = 1_500_000  # of a notebook, pictures included
MOST_SECONDS = 1800  # of a cell


def execute(notebook: NotebookNode) -> None:
    """Run all cells in a fresh kernel of this Python, with what they show written into `notebook`.

    Raises:
        CellExecutionError: a cell failed.
    """
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=MOST_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(ROOT / "lessons")}},
    ).execute()


def cover(notebook: NotebookNode) -> bytes:
    """The PNG that the cell tagged so shows."""
    (cell,) = (cell for cell in notebook.cells if "cover" in cell.metadata.get("tags", []))
    (png,) = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
    return base64.b64decode(png)


def renew(lesson: Path) -> float:
    """Execute a lesson and write it, and its picture, back; the minutes it took."""
    notebook, began = nbformat.read(lesson, 4), time.perf_counter()
    execute(notebook)
    minutes = (time.perf_counter() - began) / 60
    text = nbformat.writes(notebook) + "\n"
    if len(text) > MOST_BYTES:
        raise ValueError(
            f"{lesson.name} has {len(text):,} bytes; allowed {MOST_BYTES:,}: show fewer or smaller pictures"
        )
    write_text(lesson, text)
    write_bytes(COVERS / f"{lesson.stem}.png", cover(notebook))
    return minutes


def chosen(words: list[str]) -> list[Path]:
    """The lessons of these numbers, all where none is said; ValueError, one line, for what is no number of one."""
    numbers = {lesson.name[0]: lesson for lesson in LESSONS}
    for word in words:
        if word not in numbers:
            raise ValueError(f"no lesson {word!r}; allowed: {', '.join(numbers)}")
    return [numbers[word] for word in words] or LESSONS


def main(words: list[str]) -> None:
    COVERS.mkdir(parents=True, exist_ok=True)
    known: Mapping[str, float] = json.loads(RECORD.read_text())["minutes"] if RECORD.is_file() else {}
    machine, minutes = describe_machine(), dict(known)
    for lesson in chosen(words):
        print(f"{lesson.name} ...", flush=True)
        minutes[lesson.stem] = round(renew(lesson), 2)
        print(f"{lesson.name}: {minutes[lesson.stem]} minutes", flush=True)
        record = {
            "command": "python -m benchmarks.lessons",
            "machine": machine,
            "minutes": dict(sorted(minutes.items())),
        }
        write_record(RECORD, record)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
