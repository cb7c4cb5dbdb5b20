"""The lessons, run from end to end at toy size with their solutions filled in; and what is committed of them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError
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
    fresh_kernel,
    solutions,
    solve,
)

MNIST = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "mnist"
WITHOUT_DIGITS = ("6", "7")
PAGE = ROOT / "docs" / "lessons.md"
NAMES = [lesson.stem for lesson in LESSONS]
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt|mnt)/|\bC:\\\\")


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """One for all lessons: importing torch in seven of them would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FROMNOISE_TOY": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}.items():
            patch.setenv(name, value)
        manager = fresh_kernel()
        asyncio.run(manager.start_kernel(cwd=str(ROOT / "lessons")))
        yield manager
        asyncio.run(manager.shutdown_kernel(now=True))


def emptied(lesson: Path) -> NotebookNode:
    """The lesson with nothing of what it showed, that begins by forgetting the one before."""
    notebook = nbformat.read(lesson, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    return notebook


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_a_lesson_runs_and_its_solutions_are_right(lesson: Path, kernel: AsyncKernelManager) -> None:
    if lesson.name[0] not in WITHOUT_DIGITS and not MNIST.is_dir():
        pytest.skip("$FROMNOISE_DATA/mnist is absent")
    notebook = emptied(lesson)
    solve(notebook)
    execute(notebook, kernel)
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    assert re.findall(r"Exercise (\d): right", printed) == ["1", "2", "3"]
    assert cover(notebook).startswith(b"\x89PNG")


def test_a_wrong_answer_is_not_let_pass(kernel: AsyncKernelManager) -> None:
    notebook = nbformat.v4.new_notebook()
    lines = 'from lesson import check\nanswer_1 = 3\ncheck(1, answer_1, lambda a: a == 2, "One less.")'
    notebook.cells = [nbformat.v4.new_code_cell(lines)]
    with pytest.raises(CellExecutionError, match="exercise 1: not yet. One less."):
        execute(notebook, kernel)


@pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)
def test_a_lesson_is_committed_executed(lesson: Path) -> None:
    """At full size, whole, without a trace of the machine, and with no other timing than that of a cell."""
    text = lesson.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    notebook = nbformat.reads(text, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output.ename for output in outputs if output.output_type == "error"]
    said = "\n".join(output.get("text", "") or output.data.get("text/plain", "") for output in outputs)
    assert not MACHINE.search(said)
    assert not re.search(r"images/s|\bleft \d", said)
    assert len(ANSWER.findall("\n".join(cell.source for cell in code))) == solutions(notebook).count("answer_") == 3
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
