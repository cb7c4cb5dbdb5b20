"""Pictures as files: what they say of themselves, and that none is ever lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from fromnoise.pipeline.pictures import GAP, grid, save_animation, save_png, stem


def plain(color: str, width: int = 32, height: int = 32) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def test_a_png_keeps_its_pixels_and_says_how_it_was_drawn(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    metadata = {"prompt": "ein grüner Stern, 星", "seed": "7"}
    path = save_png(Image.fromarray(pixels), tmp_path / "new" / "deep", "a", metadata)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.text == metadata  # type: ignore[attr-defined]


def test_names_never_collide_between_processes(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from PIL import Image\n"
        "from fromnoise.pipeline.pictures import save_png\n"
        "for i in range(50):\n"
        "    print(save_png(Image.new('L', (8, 8)), sys.argv[1], 'same', {'from': f'{sys.argv[2]} {i}'}))\n"
    )
    commands = [[sys.executable, "-c", script, str(tmp_path), who] for who in ("one", "two")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    names = [line for process in running for line in process.communicate()[0].splitlines()]
    assert len(set(names)) == 100
    told = {Image.open(path).text["from"] for path in tmp_path.iterdir()}  # type: ignore[attr-defined]
    assert told == {f"{who} {i}" for who in ("one", "two") for i in range(50)}


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red circle, left of a BLUE square!", "a-red-circle-left-of-a-blue-square_3"),
        ("../../etc/passwd", "etc-passwd_3"),
        ("", "picture_3"),
        ("红色圆", "红色圆_3"),
    ],
)
def test_a_stem_is_a_plain_file_name(prompt: str, name: str) -> None:
    assert stem(prompt, 3) == name


def test_a_stem_of_any_prompt_fits_a_file_name(tmp_path: Path) -> None:
    prompt = "星" * 5000
    assert save_png(plain("red"), tmp_path, stem(prompt, 2**63 - 1), {"prompt": prompt}).is_file()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"cannot write pictures into .*file: File exists"):
        save_png(plain("red"), tmp_path / "file", "a", {})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_grid_is_row_by_row_and_not_smoothed() -> None:
    sheet = grid([plain(color) for color in ("red", "lime", "blue")], 2)
    assert sheet.size == (2 * 128 + 3 * GAP, 2 * 128 + 3 * GAP)
    at = [(GAP, GAP), (2 * GAP + 128, GAP), (GAP, 2 * GAP + 128), (2 * GAP + 128, 2 * GAP + 128)]
    assert [sheet.getpixel(place) for place in at] == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    checked = Image.fromarray(np.indices((8, 8)).sum(0).astype(np.uint8) % 2 * 255)
    assert set(np.unique(np.asarray(grid([checked], 1)))) == {0, 255}


def test_labels_stand_under_their_pictures() -> None:
    bare = np.asarray(grid([plain("white")] * 2, 2))
    labelled = np.asarray(grid([plain("white")] * 2, 2, ["", "a long label that needs more than one line"]))
    height, width = bare.shape[:2]
    assert labelled.shape[0] > height
    assert (labelled[: GAP + 128] == 255).all()
    assert (labelled[:, : width // 2] == 255).all()
    assert (labelled[GAP + 128 :, width // 2 :] < 128).any()


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_an_animation_holds_every_frame(kind: str, tmp_path: Path) -> None:
    frames = [plain(color, 32, 16) for color in ("black", "red", "lime", "blue")]
    path = save_animation(frames, tmp_path, "a", kind)  # type: ignore[arg-type]
    assert path.name == f"a.{kind}"
    with Image.open(path) as film:
        shown = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    assert [frame.getpixel((5, 5)) for frame in shown] == [frame.getpixel((5, 5)) for frame in frames]
    assert shown[0].size == (128, 64)
    assert save_animation(frames, tmp_path, "a", kind).name == f"a-2.{kind}"  # type: ignore[arg-type]
