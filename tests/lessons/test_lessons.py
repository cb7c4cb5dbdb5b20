"""The lessons, run from end to end at toy size with their solutions filled in; and what is committed of them."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode

from benchmarks.lessons import (
    ANSWER,
    COVERS,
    LESSONS,
    MOST_BYTES,
    ROOT,
    chosen,
    cover,
    execute,
    solutions,
    solve,
)

MNIST = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "mnist"
WITHOUT_DIGITS = ("6", "7")
PAGE = ROOT / "docs" / "lessons.md"
NAMES = [lesson.stem for lesson in LESSONS]
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt|mnt)/|\bC:\\\\")


def begun(lesson: Path) -> NotebookNode:
    """The lesson with its solutions and nothing of what it showed; it begins by forgetting the one before."""
    notebook = nbformat.read(lesson, 4)
    solve(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    return notebook


@pytest.mark.lessons
@pytest.mark.timeout(1200)
def test_lessons_run_and_their_solutions_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one kernel: importing torch for each of them, as nbmake does, would take most of the time; nor could
    nbmake put a solution in front of the check in its cell."""
    monkeypatch.setenv("FROMNOISE_TOY", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lessons = [one for one in LESSONS if MNIST.is_dir() or one.name[0] in WITHOUT_DIGITS]
    notebooks = {lesson.stem: begun(lesson) for lesson in lessons}
    every = nbformat.v4.new_notebook()
    every.cells = [cell for notebook in notebooks.values() for cell in notebook.cells]
    wrong = 'from lesson import check\ncheck(1, 3, lambda answer: answer == 2, "One less.")'
    every.cells.append(nbformat.v4.new_code_cell(wrong))
    execute(every, allow_errors=True)
    for name, notebook in notebooks.items():
        assert not [(name, one.source, said.evalue) for one in code(notebook) for said in one.outputs if is_error(said)]
        printed = "".join(said.text for one in code(notebook) for said in one.outputs if said.output_type == "stream")
        assert re.findall(r"Exercise (\d): right", printed) == ["1", "2", "3"], name
        assert cover(notebook).startswith(b"\x89PNG")
    (refused,) = every.cells[-1].outputs
    assert refused.evalue == "exercise 1: not yet. One less."


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_error(output: NotebookNode) -> bool:
    return output.output_type == "error"


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_a_lesson_is_committed_executed(lesson: Path) -> None:
    """At full size, whole, without a trace of the machine, and with no other timing than that of a cell."""
    text = lesson.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    notebook = nbformat.reads(text, 4)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output.ename for output in outputs if is_error(output)]
    said = "\n".join(output.get("text", "") or output.data.get("text/plain", "") for output in outputs)
    assert not MACHINE.search(said)
    assert not re.search(r"images/s|\bleft \d", said)
    assert len(ANSWER.findall("\n".join(cell.source for cell in cells))) == solutions(notebook).count("answer_") == 3
    assert (COVERS / f"{lesson.stem}.png").read_bytes() == cover(notebook)


def test_the_page_lists_every_lesson_with_its_picture() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"\(\.\./lessons/(\w+)\.ipynb\)", page) == NAMES
    assert re.findall(r"\(images/lessons/(\w+)\.png\)", page) == NAMES


def test_lessons_are_chosen_by_number() -> None:
    assert chosen([]) == LESSONS
    assert chosen(["3"]) == [LESSONS[2]]
    with pytest.raises(ValueError, match=r"no lesson '9'; allowed: 1, 2, 3, 4, 5, 6, 7$"):
        chosen(["9"])


def helper() -> ModuleType:
    """lessons/lesson.py, as a notebook beside it imports it."""
    spec = importlib.util.spec_from_file_location("lesson", ROOT / "lessons" / "lesson.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_picture_is_kept_in_few_colours() -> None:
    """A mode that PIL offers notebooks as PNG only: in others they would keep a JPEG beside it."""
    from PIL import Image

    shown = helper().show(Image.new("RGB", (4, 4), (200, 10, 10)))
    assert shown.mode == "P"
    assert shown.convert("RGB").getpixel((0, 0)) == (200, 10, 10)
    assert shown._repr_jpeg_() is None
