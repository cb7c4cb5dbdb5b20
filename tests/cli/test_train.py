"""`fromnoise train`: a recipe with changed fields is trained, recorded, and goes on."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.core.config import read_yaml
from fromnoise.diffusion.target import TARGETS
from fromnoise.training.run import AdamW, Run

SMALL = (
    "--data.size 16 --model.backbone.patch 8 --model.backbone.width 16 --model.backbone.head_width 8"
    " --model.backbone.depth 1 --model.conditioner.vocabulary 280 --model.conditioner.width 16"
    " --model.conditioner.depth 0 --model.conditioner.heads 1 --model.sampling.steps 2"
    " --training.steps 2 --training.batch 4 --training.device cpu --training.precision float32 --training.compile off"
    " --training.optimizer.type adamw --training.optimizer.lr 1e-4"
).split()


def test_a_run_is_trained_recorded_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "folder", "--data.path", str(folder), "--directory", "run", *SMALL]
    assert main(command) == 0
    assert "draw with it: fromnoise sample run 'a prompt'\n" in capsys.readouterr().out
    recorded = read_yaml(Run, "run/run.yaml")
    assert recorded.training.optimizer == AdamW(lr=1e-4)
    assert recorded.model.size == 16
    weights = Path("run/checkpoints/step-00000002/model.safetensors")
    before = weights.read_bytes()

    assert main(command) == 0  # the same command again finds it done
    assert main(["train", "run/run.yaml"]) == 0  # so does the record of the run, and its directory
    assert main(["train", "run"]) == 0
    assert "is trained" in capsys.readouterr().err

    assert main(["train", "run", "--training.seed", "1"]) == 2
    assert "training.seed is 0 there, 1 here" in capsys.readouterr().err
    assert weights.read_bytes() == before

    assert main(["train", "run/run.yaml", "--directory", "again"]) == 0  # elsewhere it is the same run anew
    assert Path("again/checkpoints/step-00000002/model.safetensors").read_bytes() == before

    larger = ["train", "run", "--start.run", "run", "--data.size", "32"]
    assert main(larger) == 2
    assert "run holds another run: data.size is 16 there, 32 here" in capsys.readouterr().err
    assert main([*larger, "--directory", "large"]) == 0  # on at twice the side, from these weights
    assert read_yaml(Run, "large/run.yaml").training.batch == 1
    assert "training.batch 4 -> 1" in capsys.readouterr().err
    for again in ([*larger, "--directory", "large"], ["train", "large"]):
        assert main(again) == 0
        assert "large is trained" in capsys.readouterr().err
    assert main(["train", "run", "--start.run", "run", "--model.backbone.depth", "2", "--directory", "deep"]) == 2
    told = "fromnoise: the weights of run do not fit: model.backbone.depth is 1 there, 2 here"
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert main(["sample", "large", "a red circle", "--size", "48x80", "--steps", "1"]) == 0
    assert main(["sample", "large", "a red circle", "--size", "48x81"]) == 2
    told = "fromnoise: size is 48x81 (height x width); allowed: multiples of 8 from 8 to 4096 pixels"
    assert capsys.readouterr().err.splitlines()[-1] == told


def test_a_yaml_elsewhere_is_kept_under_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(f"data: {{type: folder, path: {folder}}}\n")
    assert main(["train", "mine.yaml", *SMALL]) == 0
    assert Path("runs/mine/run.yaml").is_file()


def test_a_directory_with_other_files_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert main(["train", "folder", "--data.path", str(folder), "--directory", str(folder), *SMALL]) == 2
    assert "holds files but no run.yaml" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What `fromnoise train ... --directory run` says when it refuses: one line at the end, and no directory."""
    assert main(["train", *args, "--directory", "run"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    *_, last = said.err.splitlines()
    assert last.startswith("fromnoise: ")
    assert "fromnoise: " not in said.err.removesuffix(f"{last}\n")
    assert not Path("run").exists()
    return last.removeprefix("fromnoise: ")


UNET = "--model.backbone.type unet --model.backbone.width 8 --model.backbone.groups 4 --model.backbone.heads 2"
TEXT = "--model.conditioner.width 16 --model.conditioner.depth 0 --model.conditioner.heads 1"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            [*SMALL, "--model.backbone.patch", "5"],
            "pictures of 16 pixels do not fit model.backbone (mmdit), which takes multiples of 5: "
            "choose another data.size, patch or number of levels",
        ),
        (
            f"{UNET} --model.backbone.multipliers 1 1 1 1 --data.size 28 {TEXT}".split(),
            "pictures of 28 pixels do not fit model.backbone (unet), which takes multiples of 8: "
            "choose another data.size, patch or number of levels",
        ),
        ([*SMALL, "--model.backbone.head_width", "12"], "backbone width 16 is not a multiple of head_width 12"),
        (
            f"{UNET} --model.backbone.groups 3 --data.size 16 {TEXT}".split(),
            "backbone width 8, at level 0, must be 2, 3, ... times groups 3",
        ),
        (
            f"{UNET} --model.backbone.heads 3 --data.size 16 {TEXT}".split(),
            "backbone width 8, at level 0, is not a multiple of heads 3",
        ),
        ([*SMALL, "--model.sampling.eta", "0.5"], "eta is 0.5 with sampler euler; only ddim reads eta, allowed 0"),
        (
            [*SMALL, "--model.sampling.interval", "0.9", "0.1"],
            "guidance interval is 0.9 to 0.1; allowed 0 <= low <= high <= 1",
        ),
        (
            [*SMALL, "--model.objective.target", "epz"],
            "model.objective.target: given 'epz'; allowed: x0, eps, v, flow, sum; nearest: eps",
        ),
        (
            [*SMALL, "--model.objective.target", "sum", "--model.sampling.steps", "9"],
            "target sum on path linear: an error of the network grows ",
        ),
        (
            [*SMALL[:10], *SMALL[18:], "--model.conditioner.type", "label", "--training.previews", "9", "a cat"],
            "prompt 'a cat' is no class of this model; allowed: a number, 0 to 9",
        ),
    ],
)
def test_what_cannot_be_trained_or_drawn_is_refused_before_it_has_a_directory(
    args: Sequence[str],
    line: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TARGETS, "sum", lambda c: (c.sigma, c.alpha))
    assert refused(capsys, "folder", "--data.path", str(folder), *args).startswith(line)


@pytest.mark.parametrize(("path", "target"), [("linear", "eps"), ("cosine", "eps"), ("vp", "eps"), ("linear", "x0")])
def test_what_has_a_pole_at_an_end_is_trained_and_drawn_beside_it(
    path: str, target: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = ["--model.path.type", path, "--model.objective.target", target, "--training.steps", "1"]
    assert main(["train", "folder", "--data.path", str(folder), "--directory", "run", *SMALL, *kind]) == 0


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "another"])
def test_mnist_that_is_not_as_published_is_refused(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = gzip.compress(b"digits" * 999)
    spoilt = {"cut": data[:-9], "flipped": data[:20] + bytes([data[20] ^ 1]) + data[21:], "another": data}
    Path("mnist").mkdir()
    names = [f"{split}-{what}-ubyte.gz" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    for name in names:
        Path("mnist", name).write_bytes(spoilt.get(damage, data))
    if damage == "missing":
        Path("mnist", names[3]).unlink()
    line = refused(capsys, "ddpm", "--data.path", "mnist")
    if damage == "missing":
        assert line.startswith(f"data folder mnist holds no {names[3]}; MNIST needs {names[0]}, ")
    else:
        assert line.startswith(f"mnist/{names[0]} is damaged or cut short: md5 ")
        assert "published f68b3c2dcbeaaa9fbdd348bbdeb94873; delete it and put the published file there" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar-10-binary.tar.gz", "is damaged or cut short: md5 d68f0b43acf6d58599009d506a6f9c78"),
        ("data_batch_1", "is damaged or cut short: md5"),
        ("data_batch_1.bin", "is damaged or cut short: 6 bytes, crc32"),
        ("train-00000-of-00001.parquet", "is damaged, cut short or not CIFAR-10"),
        ("other", "holds no train pictures of CIFAR-10: looked for cifar-10-batches-bin"),
    ],
)
def test_cifar_that_is_not_as_published_is_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("cifar").mkdir()
    Path("cifar", name).write_bytes(b"photos")
    line = refused(capsys, "x0", "--data.type", "cifar10", "--data.path", "cifar")
    assert words in line
    assert "cifar" in line


MNIST = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason="$FROMNOISE_DATA/mnist is absent")
def test_labels_outside_the_classes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = "--model.conditioner.classes 9 --model.backbone.depth 1 --model.backbone.width 16".split()
    line = refused(capsys, "dit", *small, "--model.backbone.head_width", "8", "--training.device", "cpu")
    assert line == "label 9 is out of range: the model knows classes 0 to 8"
