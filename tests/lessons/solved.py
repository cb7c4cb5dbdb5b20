"""The lessons as a reader leaves them who has answered every exercise: what `make lessons-toy` runs.

python -m tests.lessons.solved build/lessons
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from benchmarks.lessons import LESSONS
from fromnoise.core.files import write_text

ANSWER = re.compile(r"^answer_\d+ = None.*$", re.M)


def solutions(notebook: NotebookNode) -> str:
    """The code that is folded away at the end of a lesson."""
    (last,) = (cell.source for cell in notebook.cells if "<summary>Solutions</summary>" in cell.source)
    (code,) = re.findall(r"^```python\n(.*?)^```$", last, re.M | re.S)
    return code


def solve(notebook: NotebookNode) -> None:
    """Put the solutions in the place of the answers that readers are to give."""
    code = solutions(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = ANSWER.sub(lambda found: code, cell.source)


def main(folder: Path) -> None:
    """Write all lessons, solved, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for lesson in LESSONS:
        notebook = nbformat.read(lesson, 4)
        solve(notebook)
        write_text(folder / lesson.name, nbformat.writes(notebook))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
