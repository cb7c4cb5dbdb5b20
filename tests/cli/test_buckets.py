"""`fromnoise buckets` as a user meets it."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fromnoise.cli.buckets import Options
from fromnoise.cli.main import main
from fromnoise.data.config import BucketsConfig

PHOTOS = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "coco_mini_256"
SHARED = ("size", "multiple", "largest_aspect", "tiers", "upscale", "background")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three wide pictures, a tall one in a folder below, one too small, one that is none."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (144, 112 + 8 * i), "red").save(folder / f"{i}.png")
    Image.new("RGB", (56, 72), "blue").save(folder / "below" / "tall.jpg")
    Image.new("RGB", (9, 12), "lime").save(folder / "tiny.png")
    (folder / "none.webp").write_text("no picture")
    return folder


def test_a_table_of_what_falls_where(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["buckets", str(pictures)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    head, *lines = said.out.splitlines()
    assert head.split() == ["height", "x", "width", "aspect", "pictures", "crop", "%", "largest", "enlarged"]
    assert [line.split() for line in lines[:4]] == [
        ["72x56", "0.78", "1", "0.0", "0.0", "0"],
        ["64x64", "1.00", "1", "11.1", "11.1", "0"],
        ["56x72", "1.29", "2", "3.3", "6.7", "0"],
        ["all", "4", "4.4", "11.1", "0"],
    ]
    assert lines[4].startswith("empty: 80x48, 48x80, 40x24, ")
    assert lines[5] == "left out, smaller than every bucket: 1: tiny.png (12x9)"
    assert lines[6] == "left out, cannot be read: 1: none.webp: cannot identify image file"
    assert len(lines) == 7


def test_json_for_programs(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["buckets", str(pictures), "--json", "--size", "64", "--upscale"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["multiple"] == 8 and found["small"] == {} and list(found["unreadable"]) == ["none.webp"]
    wide = next(bucket for bucket in found["buckets"] if (bucket["height"], bucket["width"]) == (56, 72))
    assert wide["pictures"] == 2 and wide["crop_largest"] == pytest.approx(1 - 14 / 15) and wide["enlarged"] == 0
    assert sum(bucket["enlarged"] for bucket in found["buckets"]) == 1


def test_a_contact_sheet(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    for _ in range(2):  # a second one takes its place
        assert main(["buckets", str(pictures), "--sheet", str(sheet), "--columns", "2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "sheet.png"]
    with Image.open(sheet) as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert colours[(255, 0, 0)] == 2 * 112 * 144 + 128 * 128  # twice the pixels of 56x72, two of them; and of 64x64


@pytest.mark.parametrize("kind", ["table.csv", "all.tar", "all.parquet"])
def test_any_source_of_preparing_is_sorted_alike(
    kind: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(source: Path) -> tuple[dict[str, Any], bytes]:
        assert main(["buckets", str(source), "--json", "--sheet", str(tmp_path / "sheet.png")]) == 0
        return json.loads(capsys.readouterr().out), (tmp_path / "sheet.png").read_bytes()

    names = [path.relative_to(pictures).as_posix() for path in sorted(pictures.rglob("*")) if path.is_file()]
    expected, sheet = told(pictures)
    place = pictures.parent / kind
    if kind == "table.csv":
        place.write_text("".join(f"{line}\n" for line in ["image,text", *(f"pictures/{name},a" for name in names)]))
    elif kind == "all.tar":
        with tarfile.open(place, "w") as file:
            for name in names:
                file.add(pictures / name, name)
    else:
        rows = {"image": [(pictures / name).read_bytes() for name in names], "text": ["a"] * len(names)}
        pq.write_table(pa.table(rows), place)
    found, drawn = told(place)
    assert found["buckets"] == expected["buckets"] and found["empty"] == expected["empty"]
    assert list(found["small"].values()) == [[12, 9]]
    assert list(found["unreadable"].values()) == ["cannot identify image file"]
    if kind != "all.parquet":  # there names are places, which the sheet shows
        assert drawn == sheet


def test_its_settings_are_those_of_the_data() -> None:
    for name in SHARED:
        ours, theirs = Options.model_fields[name], BucketsConfig.model_fields[name]
        assert repr((ours.default, ours.annotation, ours.metadata)) == repr(
            (theirs.default, theirs.annotation, theirs.metadata)
        )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", ["a source of pictures must be given", "fromnoise buckets SOURCE"]),
        ("nowhere", ["no source at nowhere: neither a file nor a directory"]),
        ("bare", ["data folder bare holds no pictures (looked for .avif"]),
        ("file", ["file is no source", "allowed: a directory, .jsonl"]),
        ("bad", ["none of the 1 pictures of bad can be read: a.png: cannot identify image file"]),
        ("pictures more", ["'more' is not expected here"]),
        ("pictures --size 60", ["size is 60; allowed: multiples of 8"]),
        ("pictures --size 1024 --tiers 1", ["all 5 pictures of pictures are smaller than every bucket"]),
        ("pictures --sheet a.jpg", ["sheet is a.jpg; allowed: the name of a .png file"]),
        ("pictures --largest_aspect .5", ["largest_aspect: given '.5'"]),
        ("pictures --multipel 8", ["unknown flag --multipel", "nearest: --multiple"]),
    ],
)
def test_faults_of_the_user(
    args: str,
    words: list[str],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare").mkdir()
    Path("bad").mkdir()
    Path("bad/a.png").touch()
    Path("file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["buckets", *args.split()]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert all(word in said.err for word in words), said.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no coco_mini_256 in $FROMNOISE_DATA")
def test_photos(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["buckets", str(PHOTOS), "--size", "256"]) == 0
    printed = capsys.readouterr().out
    page = Path(__file__).parents[2] / "docs" / "buckets.md"
    assert printed.strip() in page.read_text(encoding="utf-8")
