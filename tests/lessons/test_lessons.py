"""What is committed of the lessons, and their exercises. `make lessons-toy` runs them, with their solutions."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode

from benchmarks.lessons import COVERS, LESSONS, MOST_BYTES, ROOT, chosen, cover
from tests.lessons.solved import ANSWER, main, solutions

PAGE = ROOT / "docs" / "lessons.md"
NAMES = [lesson.stem for lesson in LESSONS]
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt|mnt)/|\bC:\\\\")


def test_solutions_take_the_place_of_answers(tmp_path: Path) -> None:
    """So that `make lessons-toy`, which runs these, checks them."""
    main(tmp_path)
    for lesson in LESSONS:
        asked, solved = map(source, (lesson, tmp_path / lesson.name))
        assert len(ANSWER.findall(asked)) == 3 and not ANSWER.findall(solved)
        assert re.findall(r"^check\(\s*(\d)", solved, re.M) == ["1", "2", "3"]


def test_an_answer_is_right_or_not_yet_or_still_to_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    check = helper().check
    check(1, 2, lambda answer: answer == 2, "One less.")
    check(2, None, lambda answer: answer == 2, "One less.")
    assert capsys.readouterr().out.splitlines() == [
        "Exercise 1: right.",
        "Exercise 2: write your answer in place of None, and run this cell again.",
    ]
    with pytest.raises(AssertionError, match=r"^exercise 3: not yet\. One less\.$"):
        check(3, 3, lambda answer: answer == 2, "One less.")


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source(lesson: Path) -> str:
    """All code of a lesson."""
    return "\n".join(cell.source for cell in code(nbformat.read(lesson, 4)))


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


def test_a_few_dots_keep_their_colour() -> None:
    """Among thousands of blues, as of a density."""
    import numpy as np
    from PIL import Image

    red = (213, 94, 0)
    pixels = np.random.default_rng(0).integers((0, 60, 120), (120, 200, 255), (200, 200, 3), dtype=np.uint8)
    pixels[::20, ::40] = red
    shown = np.asarray(helper().show(Image.fromarray(pixels)).convert("RGB")).astype(int)
    assert np.abs(shown[::20, ::40] - red).max() <= 12
