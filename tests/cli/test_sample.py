"""`fromnoise sample`: which model draws, what is written, and what the pictures say of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fromnoise
from fromnoise.cli import sample
from fromnoise.cli.main import main
from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.files import content_hash
from fromnoise.models.config import DiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.studio.asked import restored
from fromnoise.studio.gallery import Gallery


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def text(path: str) -> dict[str, str]:
    with Image.open(path) as image:
        return image.text  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_pictures_say_how_they_were_drawn(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(checkpoint), "a red circle", "a blue square", "--count", "2", "--seed", "7"]) == 0
    names = [
        f"pictures/{words}_{seed}.png"
        for words, seed in zip(
            ["a-red-circle", "a-red-circle", "a-blue-square", "a-blue-square"], range(7, 11), strict=True
        )
    ]
    assert capsys.readouterr().out.split() == names
    hashed = content_hash(checkpoint / "checkpoints" / "step-00000010" / "ema.safetensors")
    assert text(names[3]) == {
        "prompt": "a blue square",
        "seed": "10",
        "steps": "3",
        "guidance": "2.0",
        "sampler": "euler",
        "checkpoint": hashed,
    }
    assert pixels(names[0]).shape == (32, 32, 3)


def test_what_a_picture_says_draws_it_again(checkpoint: Path) -> None:
    ask = [str(checkpoint), "a red circle", "a blue square", "--sampler", "ddim", "--steps", "2", "--guidance", "3"]
    assert main(["sample", *ask]) == 0
    told = text("pictures/a-blue-square_1.png")
    again = [f"--{key}={told[key]}" for key in ("seed", "steps", "guidance", "sampler")]
    assert main(["sample", str(checkpoint), told["prompt"], *again, "--out", "again"]) == 0
    first, second = pixels("pictures/a-blue-square_1.png"), pixels("again/a-blue-square_1.png")
    assert np.abs(first.astype(int) - second).max() <= 1  # but for rounding in batches of another size


def test_the_package_draws_the_same(checkpoint: Path) -> None:
    assert main(["sample", str(checkpoint), "a red circle", "--device", "cpu"]) == 0
    (picture,) = fromnoise.load(checkpoint, device="cpu")("a red circle")
    assert np.array_equal(np.asarray(picture), pixels("pictures/a-red-circle_0.png"))


def test_nothing_is_ever_overwritten(checkpoint: Path) -> None:
    for _ in range(3):
        assert main(["sample", str(checkpoint), "a", "--steps", "1", "--grid"]) == 0
    names = sorted(path.name for path in Path("pictures").iterdir())
    assert names == ["a_0-2.png", "a_0-3.png", "a_0.png", "grid-2.png", "grid-3.png", "grid.png"]


def test_a_sheet_is_no_picture_to_draw_again(checkpoint: Path) -> None:
    assert main(["sample", str(checkpoint), "a", "b", "--steps", "1", "--grid"]) == 0
    assert text("pictures/grid.png")["prompts"] == "a\nb"
    with pytest.raises(ValueError, match=r"grid\.png does not say its prompt; allowed: a picture"):
        restored(Path("pictures/grid.png"))
    assert {one.file.name for one in Gallery(Path("pictures")).newest()} == {"a_0.png", "b_1.png"}


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_an_animation_has_a_frame_for_each_step(checkpoint: Path, kind: str) -> None:
    assert main(["sample", str(checkpoint), "a", "--steps", "4", "--animate", kind]) == 0
    with Image.open(f"pictures/a_0.{kind}") as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]
        film.seek(3)
        last = np.asarray(film.convert("RGB").resize((32, 32), Image.Resampling.NEAREST)).astype(int)
    if kind == "webp":  # GIF has 256 colours only
        assert np.array_equal(last, pixels("pictures/a_0.png"))


def test_raw_weights_draw_another_picture(checkpoint: Path) -> None:
    assert main(["sample", str(checkpoint), "a"]) == 0
    assert main(["sample", str(checkpoint), "a", "--raw"]) == 0
    assert text("pictures/a_0.png")["checkpoint"] != text("pictures/a_0-2.png")["checkpoint"]


def test_size_is_height_by_width(checkpoint: Path) -> None:
    assert main(["sample", str(checkpoint), "a", "--size", "16x40"]) == 0
    assert main(["sample", str(checkpoint), "b", "--size", "24"]) == 0
    assert pixels("pictures/a_0.png").shape == (16, 40, 3)
    assert pixels("pictures/b_0.png").shape == (24, 24, 3)


@pytest.mark.parametrize("place", ["checkpoints/step-00000005", "checkpoints/step-00000005/ema.safetensors"])
def test_a_checkpoint_or_a_file_draws_too(checkpoint: Path, place: str) -> None:
    assert main(["sample", str(checkpoint / place), "a"]) == 0
    hashed = content_hash(checkpoint / "checkpoints" / "step-00000005" / "ema.safetensors")
    assert text("pictures/a_0.png")["checkpoint"] == hashed


def test_the_first_word_is_a_run_only_if_it_looks_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path("shipped.safetensors")
    monkeypatch.setattr(sample, "shipped", lambda: shipped)
    Path("here").mkdir()
    assert sample.split(["a red circle", "b"]) == (shipped, ["a red circle", "b"])
    assert sample.split(["x" * 5000]) == (shipped, ["x" * 5000])
    assert sample.split(["here", "b"]) == (Path("here"), ["b"])
    assert sample.split(["not/here", "b"]) == (Path("not/here"), ["b"])
    assert sample.split(["gone.safetensors", "b"]) == (Path("gone.safetensors"), ["b"])
    assert sample.split(["a red/blue circle"]) == (shipped, ["a red/blue circle"])
    assert sample.split(["not/here now", "b"]) == (Path("not/here now"), ["b"])
    with pytest.raises(ValueError, match="'red/blue' is read as a path, and nothing is there"):
        sample.split(["red/blue"])
    for words in ([], ["here"]):
        with pytest.raises(ValueError, match="no prompt is given"):
            sample.split(words)


def test_a_word_that_may_be_meant_for_a_run_is_told_to_be_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.split(["lat", "a red circle"])[1] == ["lat", "a red circle"]
    told = "note: no run is at lat, so it is drawn as a prompt, by the model that came with fromnoise\n"
    assert capsys.readouterr().err == told
    Path("lat").mkdir()
    for words in (["lat", "a red circle"], ["circle"], ["a red circle", "star"], ["", "star"]):
        sample.split(words)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--steps 0", "steps: given 0"),
        ("--steps 1001", "steps: given 1001"),
        ("--guidance -1", "guidance: given -1.0"),
        ("--guidance 101", "guidance: given 101.0"),
        ("--size 33", "multiples of 8"),
        ("--size 0", "multiples of 8"),
        ("--device cud", "device 'cud' is not here"),
        ("--out file", "cannot write pictures into file"),
    ],
)
def test_what_is_out_of_range_is_one_line(
    checkpoint: Path, args: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("mine")
    assert main(["sample", str(checkpoint), "a", *args.split()]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of classes whose weights are far from zero."""
    config = ModelConfig(
        backbone=DiTConfig(patch=8, width=16, depth=1, head_width=8),
        conditioner=LabelConfig(classes=10, width=16),
        sampling=Sampling(steps=2, guidance=1.0),
    )
    pipeline = Pipeline.build(config, [], 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipeline.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    file = tmp_path_factory.mktemp("classes") / "model.safetensors"
    pipeline.save(file, {})
    return file


def test_a_model_of_classes_is_asked_for_them_by_number(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(classes), "7", "3"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == ["pictures/7_0.png", "pictures/3_1.png"]
    assert said.err == ""
    model = fromnoise.load(classes, device="cpu")
    for drawn in (model("7"), model("", labels=[7])):
        assert np.array_equal(np.asarray(drawn[0]), pixels("pictures/7_0.png"))
    assert not np.array_equal(np.asarray(model("8")[0]), pixels("pictures/7_0.png"))
    with pytest.raises(ValueError, match="label 10 is out of range: the model knows classes 0 to 9"):
        model([""] * 99, labels=[0] * 98 + [10])


@pytest.mark.parametrize("prompt", ["10", "seven", "-1"])
def test_what_is_no_class_is_one_line_and_draws_nothing(
    classes: Path, prompt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(classes), *["1"] * 70, prompt]) == 2
    told = f"prompt {prompt!r} is no class of this model; allowed: a number, 0 to 9"
    assert capsys.readouterr().err == f"fromnoise: {told}\n"
    assert not Path("pictures").exists()


def test_a_damaged_file_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (checkpoint / "checkpoints" / "step-00000010" / "ema.safetensors").read_bytes()
    for name, damaged in (("cut", data[:-9]), ("altered", data[:-1] + bytes([data[-1] ^ 1]))):
        (tmp_path / f"{name}.safetensors").write_bytes(damaged)
        assert main(["sample", f"{name}.safetensors", "a"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert name in said


def test_too_little_memory_is_one_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Pipeline, "stream", lambda *asked, **more: torch.empty(2**52))
    assert main(["sample", str(checkpoint), "a red circle"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("fromnoise: there is no memory for 16,384 TiB more") and told.count("\n") == 1
