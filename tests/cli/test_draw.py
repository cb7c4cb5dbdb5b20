"""`fromnoise draw`: a benchmark's prompts in GenEval's layout of directories."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.cli.main import main
from fromnoise.evaluation.prompts import COMPBENCH, SETS, read_set
from fromnoise.pipeline.load import load
from tests.conftest import stirred

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))
LINES = [
    '{"tag": "counting", "include": [{"class": "cat", "count": 2}], "prompt": "a photo of two cats"}',
    '{"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a photo of a cow"}',
    '{"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a photo of a red car"}',
]


@pytest.fixture(scope="module")
def lively(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose pictures hang on their noise: a fresh one's last layer is 0."""
    path = tmp_path_factory.mktemp("lively") / "ema.safetensors"
    stirred(load(checkpoint, device="cpu"), 0.1).save(path, {})
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


def drawn(checkpoint: Path, prompts: Path, out: Path, *more: str) -> int:
    return main(["draw", str(checkpoint), "--path", str(prompts), "--out", str(out), "--steps", "1", *more])


def judged_by_geneval(folder: Path) -> dict[str, tuple[list[dict], list[str]]]:
    """What GenEval's evaluate_images.py finds: for every directory named by digits its metadata and its pictures."""
    found = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and place.name.isdigit():
            with open(place / "metadata.jsonl") as file:
                metadata = json.load(file)
            samples = sorted(p.name for p in (place / "samples").iterdir() if re.match(r"\d+\.png", p.name))
            found[place.name] = (metadata, samples)
    return found


def test_the_layout_is_what_geneval_reads(lively: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert drawn(lively, prompts, out, "--seed", "7") == 0
    found = judged_by_geneval(out)
    assert [metadata for metadata, _ in found.values()] == [json.loads(line) for line in LINES]
    assert list(found) == ["00000", "00001", "00002"]
    assert all(samples == [f"{j:04}.png" for j in range(4)] for _, samples in found.values())
    record = json.loads((out / "drawn.json").read_text())
    assert (record["set"], record["count"], record["seed"], record["steps"]) == ("geneval", 4, 7, 1)
    with Image.open(out / "00001" / "samples" / "0002.png") as picture, Image.open(out / "00001" / "grid.png") as grid:
        assert picture.mode == "RGB"
        text = picture.text  # type: ignore[attr-defined]
        assert (text["seed"], text["prompt"]) == ("13", "a photo of a cow")  # 7 + 1 * 4 + 2
        assert text["checkpoint"] == record["checkpoint"]
        assert grid.size == (2 * picture.width, 2 * picture.height)
        assert grid.crop((0, picture.height, picture.width, 2 * picture.height)).tobytes() == picture.tobytes()
        (alone,) = load(lively, device="cpu")("a photo of a cow", 1, seed=13)
        apart = [abs(a - b) for a, b in zip(alone.convert("RGB").tobytes(), picture.tobytes(), strict=True)]
        assert max(apart) <= 1  # rounding


def test_what_is_there_is_not_drawn_again(
    lively: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert drawn(lively, prompts, out, "--count", "40") == 0  # so many are drawn prompt by prompt
    assert capsys.readouterr().out == f"{out}: 120 pictures drawn, 0 were there\n"
    (alone,) = load(lively, device="cpu")("a photo of a red car", 1, seed=2 * 40 + 3)
    with Image.open(out / "00002" / "samples" / "0003.png") as picture:
        apart = [abs(a - b) for a, b in zip(alone.convert("RGB").tobytes(), picture.tobytes(), strict=True)]
    assert max(apart) <= 1  # rounding
    assert len({path.read_bytes() for path in out.glob("*/samples/0000.png")}) == 3
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    lost = out / "00001" / "samples" / "0007.png"
    before = lost.read_bytes()
    lost.unlink()
    assert drawn(lively, prompts, out, "--count", "40") == 0
    assert capsys.readouterr().out == f"{out}: 40 pictures drawn, 80 were there\n"
    assert lost.read_bytes() == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path.parents[1].name != "00001"
               and path.parent.name != "00001")  # fmt: skip
    assert drawn(lively, prompts, out, "--count", "40", "--guidance", "5") == 2
    told = capsys.readouterr().err
    assert "holds pictures drawn otherwise: guidance is 2.0 there, 5.0 here; choose another directory" in told
    prompts.write_text("\n".join([*LINES[:2], LINES[0]]) + "\n")
    assert drawn(lively, prompts, out, "--count", "40") == 2
    assert "holds pictures of another prompt, 'a photo of a red car'" in capsys.readouterr().err
    prompts.write_text("\n".join([*LINES, LINES[0]]) + "\n")
    assert drawn(lively, prompts, out, "--count", "40") == 0  # more prompts are drawn beside those there
    assert capsys.readouterr().out == f"{out}: 40 pictures drawn, 120 were there\n"


def test_faults_are_told_in_one_line(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a cat"}\n{"text": "a dog"}\n')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    monkeypatch.delenv("FROMNOISE_DATA", raising=False)
    run, path = str(checkpoint), str(prompts)
    faults = {
        "one run is wanted, 0 words are given": ["--path", path],
        "nothing at runs/none": ["runs/none", "--path", path],
        "set: given 'genval'; allowed: geneval, partiprompts, drawbench, dpg, t2i-compbench; nearest: geneval": [
            run, "--set", "genval"],
        "where are the prompts of drawbench? Give --path, or set FROMNOISE_DATA": [run, "--set", "drawbench"],
        "nothing at here.txt; allowed: drawbench.txt of DrawBench": [run, "--set", "drawbench", "--path", "here.txt"],
        'bad.jsonl, line 2 holds no "prompt"': [run, "--path", str(bad)],
        "PartiPrompts.tsv as it is published": [run, "--set", "partiprompts", "--path", path],
        "full holds files but no drawn.json": [run, "--path", path, "--out", str(tmp_path / "full")],
    }  # fmt: skip
    for told, words in faults.items():
        assert main(["draw", *words]) == 2, told
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == 1, said


def test_files_of_prompts_as_editors_leave_them(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_bytes("\ufeffa red\u2028circle\r\n\r\na blue star\r\n".encode())
    assert read_set("drawbench", path) == [{"prompt": "a red\u2028circle"}, {"prompt": "a blue star"}]
    path.write_bytes('\ufeff{"prompt": "a red\u2028circle"}\r\n\r\n{"prompt": "b"}\r\n'.encode())
    assert read_set("dpg", path) == [{"prompt": "a red\u2028circle"}, {"prompt": "b"}]
    path.write_bytes("\ufeffPrompt\tNote\r\na red\u2028circle\tround\r\n\r\n".encode())
    assert read_set("partiprompts", path) == [{"prompt": "a red\u2028circle", "note": "round"}]
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b')
    with pytest.raises(ValueError, match="line 3 is not JSON"):
        read_set("dpg", path)


@pytest.mark.skipif(not (DATA / "prompts").is_dir(), reason="$FROMNOISE_DATA/prompts is absent")
def test_all_published_sets_are_read() -> None:
    known = {name: read_set(name) for name in SETS}
    assert {name: len(found) for name, found in known.items()} == {
        "geneval": 553, "partiprompts": 1632, "drawbench": 200, "dpg": 1065, "t2i-compbench": 2400}  # fmt: skip
    assert all(one["prompt"].strip() for found in known.values() for one in found)
    assert {one["tag"] for one in known["geneval"]} == {
        "single_object", "two_object", "counting", "colors", "position", "color_attr"}  # fmt: skip
    assert {"category", "challenge"} <= set(known["partiprompts"][0]) and known["dpg"][0]["id"] == "0"
    tags = [one["tag"] for one in known["t2i-compbench"]]
    assert all(tags.count(category) == 300 for category in COMPBENCH)
