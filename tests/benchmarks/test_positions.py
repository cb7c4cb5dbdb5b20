"""The comparison of position codes at toy size: its record, its picture, and the table in its page."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import positions
from benchmarks.positions import BEGIN, END, ENLARGED, PAGE, ROOT, SIZES, Settings, measure, put, run_of
from fromnoise.data.scenes import SQUARE
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.positions import CODES
from fromnoise.recipes.positions import positions as recipe
from fromnoise.training.validation import Validation

TOY = "--steps 4 --batch 2 --width 32 --depth 2 --samples 2 --sampling_steps 2".split()


def test_every_code_is_trained_measured_drawn_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fromnoise.training.drawing.CAPTIONS", 300)
    monkeypatch.setattr("fromnoise.training.validation.PER_BIN", 1)
    monkeypatch.setattr("fromnoise.training.validation.COUNT", 10)
    args = [*TOY, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    positions.main(args)
    record = json.loads((tmp_path / "out/benchmarks/results/positions.json").read_text())
    assert list(record["codes"]) == list(CODES)
    hashes = set()
    for told in record["codes"].values():
        assert told["training"]["steps"] == 4 and list(told["sizes"]) == list(SIZES)
        hashes.add(told["sha256"])
        for found in told["sizes"].values():
            assert len(found["loss_by_time"]) == 10 and found["loss"] == pytest.approx(sum(found["loss_by_time"]) / 10)
            assert found["adherence"] == {"single_object": 0, "position": 0} and found["objects"] >= 0
        assert len({found["loss"] for found in told["sizes"].values()}) == 5
    assert len(hashes) == 5
    assert record["codes"]["learned"]["parameters"] == record["codes"]["rope"]["parameters"] + 8 * 8 * 32

    page = (tmp_path / "out" / PAGE).read_text(encoding="utf-8")
    table = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert capsys.readouterr().out.strip() == table
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| validation loss")]
    assert [row[1] for row in rows] == list(CODES)
    for told, row in zip(record["codes"].values(), rows, strict=True):
        shown = [float(cell.strip(" |")) for cell in row[2:]]
        assert shown == [round(told["sizes"][name]["loss"], 4) for name in SIZES]
    with Image.open(tmp_path / "out/docs/images/positions.png") as picture:
        assert picture.width > 2 * ENLARGED * sum(width for _, width in SIZES.values())
        assert picture.height > 5 * ENLARGED * 64

    monkeypatch.setattr(positions, "SIZES", {"trained": SQUARE})
    began = time.time()
    positions.main(args)  # what is trained is not trained again
    again = json.loads((tmp_path / "out/benchmarks/results/positions.json").read_text())
    for code, told in again["codes"].items():
        assert told["sizes"] == {"trained": record["codes"][code]["sizes"]["trained"]}
    assert all(file.stat().st_mtime < began for file in (tmp_path / "runs").rglob("*.safetensors"))


def test_at_its_defaults_a_code_is_trained_as_its_recipe_says() -> None:
    assert all(run_of(code, Settings()) == recipe(code) for code in CODES)


def test_the_loss_at_the_size_trained_on_is_that_of_training() -> None:
    settings = Settings(width=32, depth=2, sampling_steps=1)
    run = run_of("rope", settings)
    data = run.data.build(run.training.seed)
    pipeline = Pipeline.build(run.model, data.captions(300), 0)
    assert measure(pipeline, SQUARE, 1)["loss_by_time"] == Validation(pipeline, data).by_time(pipeline, None)


def test_the_page_has_room_for_the_table_and_keeps_all_else() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    once = put(page, "| a |")
    assert put(put(once, "| b |"), "| a |") == once and "\n| a |\n" in once
    assert once.partition(BEGIN)[0] == page.partition(BEGIN)[0] and once.partition(END)[2] == page.partition(END)[2]


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: --samples"):
        positions.main(["--sample", "3"])
