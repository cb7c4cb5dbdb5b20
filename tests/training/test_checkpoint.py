"""Checkpoints: whole or not there, and never trusted blindly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.place import list_checkpoints, weights
from fromnoise.training import checkpoint
from fromnoise.training.checkpoint import Progress, State
from fromnoise.training.ema import Ema
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import Muon


@pytest.fixture
def parts(pipeline: Pipeline) -> tuple[Pipeline, Ema, Optimizer]:
    ema, optimizer = Ema(pipeline, 10.0), Optimizer(pipeline, Muon())
    for p in pipeline.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(1.0)
    ema.update(0)
    return pipeline, ema, optimizer


def test_everything_comes_back(tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer]) -> None:
    pipeline, ema, optimizer = parts
    path = checkpoint.save(tmp_path, State(*parts, Progress(7, 1.5, [0.1, 0.2])), keep=2)
    other = checkpoint.load_model(path, Pipeline.load)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), pipeline.parameters(), strict=True))
    other_ema, other_optimizer = Ema(other, 10.0), Optimizer(other, Muon())
    assert checkpoint.load_rest(path, other_ema, other_optimizer) == Progress(7, 1.5, [0.1, 0.2])
    assert all(torch.equal(a, b) for a, b in zip(other_ema.average, ema.average, strict=True))
    assert all(torch.equal(value, optimizer.tensors()[key]) for key, value in other_optimizer.tensors().items())


def test_each_file_of_weights_stands_alone(tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer]) -> None:
    pipeline, ema, _ = parts
    path = checkpoint.save(tmp_path, State(*parts, Progress(7)), keep=2)
    alone = tmp_path / "elsewhere.safetensors"
    shutil.move(path / "ema.safetensors", alone)
    shutil.rmtree(path)
    loaded = Pipeline.load(alone)
    assert loaded.config == pipeline.config
    assert loaded.conditioner.state == pipeline.conditioner.state
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), ema.average, strict=True))


def test_the_last_ones_are_kept(tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer]) -> None:
    for step in (2, 4, 100_000_000):
        checkpoint.save(tmp_path, State(*parts, Progress(step)), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-100000000"]
    assert list_checkpoints(tmp_path)[-1].name == "step-100000000"


def test_a_copy_under_another_name_is_no_checkpoint(tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer]) -> None:
    root = tmp_path / "checkpoints"
    for step in (2, 4):
        path = checkpoint.save(root, State(*parts, Progress(step)), keep=2)
    shutil.copytree(root / "step-00000002", root / "step-00000005 copy")
    assert weights(tmp_path) == path / "ema.safetensors"


def test_what_a_kill_leaves_is_no_checkpoint_and_is_swept(
    tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer]
) -> None:
    path = checkpoint.save(tmp_path, State(*parts, Progress(2)), keep=2)
    shutil.copytree(path, tmp_path / ".step-00000004.partial")
    shutil.copytree(path, tmp_path / ".step-00000001.gone")
    assert list_checkpoints(tmp_path) == [path]
    checkpoint.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 5_000, 60_000])
def test_a_full_disk_is_told_in_one_line_and_harms_nothing(
    tmp_path: Path,
    parts: tuple[Pipeline, Ema, Optimizer],
    full_disk: Callable[[int], AbstractContextManager[None]],
    size: int,
) -> None:
    good = checkpoint.save(tmp_path, State(*parts, Progress(2)), keep=1)
    with full_disk(size), pytest.raises(ValueError) as error:
        checkpoint.save(tmp_path, State(*parts, Progress(4)), keep=1)
    told = str(error.value)
    assert "checkpoint of step 4: cannot write" in told and "File too large" in told and "\n" not in told
    assert f"{good} is intact" in told
    assert list(tmp_path.iterdir()) == [good]
    assert checkpoint.load_rest(good, parts[1], parts[2]).step == 2
    checkpoint.save(tmp_path, State(*parts, Progress(4)), keep=1)


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "swap"])
def test_a_damaged_checkpoint_is_refused_by_name(
    tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer], name: str, harm: str
) -> None:
    _, ema, optimizer = parts
    earlier = checkpoint.save(tmp_path, State(*parts, Progress(2)), keep=2)
    optimizer.step(1.0)
    ema.update(1)
    path = checkpoint.save(tmp_path, State(*parts, Progress(4)), keep=2)
    data = (path / name).read_bytes()
    if harm == "cut":
        (path / name).write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        middle = len(data) * 3 // 4
        (path / name).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif harm == "remove":
        (path / name).unlink()
    else:
        shutil.copy(earlier / name, path / name)
    with pytest.raises(ValueError) as error:
        other = checkpoint.load_model(path, Pipeline.load)
        checkpoint.load_rest(path, Ema(other, 10.0), Optimizer(other, Muon()))
    told = str(error.value)
    assert told.startswith(f"damaged checkpoint {path}: ") and "\n" not in told
    assert told.endswith("to go on from step-00000002, remove that directory")


@pytest.mark.parametrize("told", ["null", "5", '{"steps": 4}', "{"])
def test_progress_that_is_none_is_refused(
    tmp_path: Path, parts: tuple[Pipeline, Ema, Optimizer], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(checkpoint, "told", lambda *given: {"progress": told, "weights": "{}"})
    path = checkpoint.save(tmp_path, State(*parts, Progress(4)), keep=1)
    with pytest.raises(
        ValueError, match=rf"^damaged checkpoint {path}: .* its progress is {re.escape(told)}; to go on"
    ):
        checkpoint.load_rest(path, parts[1], parts[2])
