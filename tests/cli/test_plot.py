"""`fromnoise plot`: which files are written, what they say of themselves, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fromnoise.cli.main import main
from fromnoise.plots import KINDS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fromnoise.plots.toy.TIMES", (0.3,))  # fields take seconds each


def text(path: Path) -> dict[str, str]:
    with Image.open(path) as image:
        return image.text  # type: ignore[attr-defined]


def test_all_that_applies_is_drawn_and_the_rest_told(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plot", str(checkpoint), "--prompt", "a red circle", "--steps", "2", "--dpi", "30", "--seed", "5"]
    assert main(asked) == 0
    said = capsys.readouterr()
    name, written = checkpoint.name, [Path(line) for line in said.out.splitlines()]
    assert [path.stem.removeprefix(f"{name}_") for path in written] == [
        "schedules",
        "weights",
        "trajectories",
        "straightness",
        "toy_moons",
        "guidance",
        "attention_a-red-circle_5",
        "classes",
    ]
    assert said.err == ""
    about = text(written[6])
    assert about["prompt"] == "a red circle" and about["seed"] == "5" and about["steps"] == "2"
    assert about["plot"] == "attention" and len(about["checkpoint"]) == 64


def test_a_recipe_has_plots_that_need_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "ddpm", "--dpi", "30", "--toy", "gaussians", "--out", "here"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [f"here/ddpm_{kind}.png" for kind in ("schedules", "weights", "toy_gaussians")]
    untold = ["trajectories", "straightness", "guidance", "attention", "classes"]
    reason = "a recipe has no weights: name a run"
    assert said.err.splitlines() == [f"no {kind} of ddpm: {reason}" for kind in untold]
    assert text(Path("here/ddpm_weights.png"))["recipe"] == "ddpm"


def test_letters_that_the_font_lacks_are_told_once(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plot", str(checkpoint), "--kinds", "guidance,attention", "--prompt", "日本語 の 円", "--steps", "2"]
    assert main([*asked, "--dpi", "30"]) == 0
    said = capsys.readouterr()
    noted = [line for line in said.err.splitlines() if "font" in line]
    assert noted == ["note: the font of plots lacks 日本語の円: an empty box stands for each"]
    assert len(said.out.splitlines()) == 2 and all(Path(line).is_file() for line in said.out.splitlines())


@pytest.mark.parametrize("place", ["runs/own", "ddpm"])
def test_a_run_among_the_prompts_is_told(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/own").mkdir(parents=True)
    assert main(["plot", "--prompt", "a red circle", place, "--kinds", "schedules"]) == 2
    error = capsys.readouterr().err
    assert f"{place!r} for a prompt" in error and "put RUN before --prompt" in error and error.count("\n") == 1
    assert not Path("plots").exists()


def test_kinds_are_drawn_as_named_and_never_over_another(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["plot", "ddpm", "sd3", "--kinds", "schedules, schedules", "--dpi", "30"]) == 0
    first, second = ([f"plots/{run}_schedules{n}.png" for run in ("ddpm", "sd3")] for n in ("", "-2"))
    assert capsys.readouterr().out.split() == first + second


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("ddpm --kinds wieghts", "unknown kind 'wieghts'; allowed: schedules, weights"),
        ("ddpm --kinds wieghts", "nearest: weights"),
        ("ddpm --kinds schedules,attention", "no attention of ddpm: a recipe has no weights"),
        ("dit --kinds attention", "no attention of dit: it reads no words"),
        ("dppm", "nearest: ddpm"),
        ("ddpm --dpi 1", "dpi: given '1'"),
        ("ddpm --toy moon", "nearest: moons"),
        ("ddpm --kinds schedules --dpi 30 --out file", "cannot write pictures into file"),
    ],
)
def test_what_cannot_be_is_one_line(args: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    assert main(["plot", *args.split()]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and words in said.err and said.out == ""
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_help_lists_the_kinds_and_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; from fromnoise.cli.main import main\n"
        "try: main(['plot', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {kind} " in told for kind in KINDS)
