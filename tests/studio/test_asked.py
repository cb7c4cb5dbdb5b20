"""What is typed or dropped into the page is checked before anything is drawn."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.pipeline.config import sides
from fromnoise.pipeline.pictures import save_png
from fromnoise.studio.asked import Asked, numbers, prompt_of, restored
from fromnoise.studio.gallery import Gallery

HOW = {"prompt": "a red circle", "seed": "7", "steps": "24", "guidance": "3.0", "sampler": "ddim"}


def test_white_space_is_single_and_other_alphabets_are_text() -> None:
    assert prompt_of("  a\tred\n\n circle ") == "a red circle"
    assert prompt_of("ein roter Kreis 红色 👩‍🎨 <b>") == "ein roter Kreis 红色 👩‍🎨 <b>"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a" * 1001, "the prompt has 1,001 characters; allowed: up to 1,000"),
        ("a \x00", "character 3 of the prompt is U\\+0000, a control character"),
        ("\x1b[31m", "character 1 of the prompt is U\\+001B"),
        ("a \ud800", "U\\+D800"),
    ],
)
def test_a_prompt_that_cannot_be_written_is_refused(prompt: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prompt_of(prompt)


def test_numbers_are_read_once_each_and_rising() -> None:
    assert numbers("3, 1 2.5 1", "guidance") == [1, 2.5, 3]


@pytest.mark.parametrize("text", ["", "a", "1 2 x", "-1", "nan", "inf", "1e9", " ".join(map(str, range(65)))])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"guidance: given .*; allowed: "):
        numbers(text, "guidance")


def test_sides_are_one_or_two() -> None:
    assert sides("64") == (64, 64) and sides("64x96") == (64, 96)
    with pytest.raises(ValueError, match="given '64 by 64'; allowed: a side in pixels"):
        sides("64 by 64")


def test_a_picture_says_how_it_was_drawn(tmp_path: Path) -> None:
    file = save_png(Image.new("RGB", (64, 32)), tmp_path, "a", HOW | {"checkpoint": "abc"})
    assert restored(file) == (Asked("a red circle", 7, 24, 3.0, "ddim", (32, 64)), "abc")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "does not say its prompt"),
        ({"prompt": "a", "seed": "1"}, "does not say its steps"),
        (HOW | {"seed": "one"}, "does not say how it was drawn: invalid literal"),
        (HOW | {"prompt": "a\x00"}, "a control character"),
    ],
)
def test_a_picture_that_does_not_say_is_refused(told: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        restored(save_png(Image.new("RGB", (8, 8)), tmp_path, "a", told))


def bomb(side: int) -> bytes:
    """A PNG that says it is `side` pixels wide and high, and holds none."""
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", bomb(100_000)], ids=["none", "gif", "cut", "bomb"]
)
def test_what_is_no_png_is_refused(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.png is no PNG that can be read"):
        restored(file)


def test_the_gallery_is_the_folder(tmp_path: Path) -> None:
    assert Gallery(tmp_path / "none").newest() == []
    for seed in range(3):
        save_png(Image.new("RGB", (8, 8)), tmp_path, "a", HOW | {"seed": str(seed)})
    save_png(Image.new("RGB", (8, 8)), tmp_path, "sheet", {})
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "deleted")
    gallery = Gallery(tmp_path)
    assert {one.drawn.asked.seed for one in gallery.newest()} == {0, 1, 2}
    (tmp_path / "a.png").unlink()
    assert [one.file.name for one in Gallery(tmp_path).newest()] == [one.file.name for one in gallery.newest()]
