"""Training on pictures of several shapes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch._dynamo.testing import CompileCounter

from fromnoise.core.types import Batch
from fromnoise.data.bucketed import BucketData
from fromnoise.data.config import BucketsConfig, PreparedConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.training.drawing import Drawing
from fromnoise.training.fast import choose
from fromnoise.training.loop import train
from fromnoise.training.run import Run
from fromnoise.training.step import draw, generator_of

Making = Callable[..., Run]


@pytest.fixture
def shaped(tmp_path: Path) -> Path:
    """Wide, tall and square pictures with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (width, height) in enumerate([(40, 24), (24, 40), (32, 32), (40, 24)] * 6):
        Image.new("RGB", (width, height), (10 * i, 0, 255 - 10 * i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"colour {i}")
    return folder


def on(run: Run, data: BucketsConfig) -> Run:
    return run.model_copy(update={"data": data})


def test_every_shape_is_trained_on_and_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, shaped: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = []
    seen = Pipeline.loss

    def watched(self: Pipeline, z: torch.Tensor, *rest: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            shapes.append(tuple(z.shape))
        return seen(self, z, *rest)

    monkeypatch.setattr(Pipeline, "loss", watched)
    run = on(tiny_run(), BucketsConfig(path=shaped, size=32, multiple=8))
    straight = train(run, tmp_path / "run")
    assert straight.config.size == 32
    assert shapes[:2] == [(4, 3, 32, 32)] * 2  # a step that is measured
    del shapes[:2]
    assert len(shapes) == 6 and set(shapes) == {(4, 3, 24, 40), (4, 3, 40, 24), (4, 3, 32, 32)}
    assert "3 buckets (height x width, pictures to train on): " in capsys.readouterr().err

    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    again = train(run, tmp_path / "run")
    assert shapes[6:] == shapes[4:6]
    assert all(torch.equal(x, y) for x, y in zip(again.parameters(), straight.parameters(), strict=True))


def test_sides_that_do_not_fit_the_model_are_refused_before_anything_is_written(
    tmp_path: Path, shaped: Path, tiny_run: Making
) -> None:
    run = on(tiny_run(), BucketsConfig(path=shaped, size=24, multiple=4))
    with pytest.raises(ValueError, match=r"pictures of 28x20 pixels .* multiples of 8: set data\.multiple to one"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trial_is_as_large_as_anything_that_is_trained_on(tmp_path: Path, tiny_run: Making) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        side = 32 if i % 4 == 0 else 16
        Image.new("RGB", (side, side), (6 * i, 0, 255)).save(folder / f"{i}.png")
    prepare(str(folder), tmp_path / "set", Preparation(size=32, buckets=True, multiple=8))
    run = tiny_run().model_copy(update={"data": PreparedConfig(path=tmp_path / "set")})
    data = run.data.build(0)
    assert set(data.sizes) == {(32, 32), (16, 16)} and data.validation(3).images.shape[2:] == (16, 16)
    trainee = Drawing(run, data, print)
    assert trainee.trial(Pipeline.build(run.model, ["colour 1"], 0), 3).z.shape == (3, 3, 32, 32)


def test_every_size_has_to_repay_its_compilation(
    tmp_path: Path, shaped: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fromnoise.training.fast.seconds_of", lambda *args: 1.0)
    data = BucketData(BucketsConfig(path=shaped, size=32, multiple=8), 0, lambda line: None)
    pipeline = Pipeline.build(tiny_run().model, ["colour 1"], 0)
    training = tiny_run(steps=300, compile="auto").training  # saves 75 s, and a compilation takes 60 s
    said: list[str] = []
    assert len(data.sizes) == 3
    choices = choose(
        pipeline,
        lambda size: draw(pipeline, data.train(0, size), generator_of(0, 0)),
        training,
        tmp_path / "a.yaml",
        said.append,
        3,
    )
    assert not choices.compile
    assert said == [
        "float32, not compiled: 300 steps of 1 s would not repay 3 compilations, one for each size of pictures"
    ]


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_more_sizes_than_torch_s_own_limit_stay_compiled(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import config

    torch.compiler.reset()
    counter = CompileCounter()
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile(self, backend=counter, **options))
    counts = []
    with config.patch(recompile_limit=1), pipeline.compiled():  # torch's own is 8, which takes long to pass
        for width in range(8, 8 * 4, 8):
            batch = Batch(torch.zeros(2, 3, 16, width), ["", ""], torch.zeros(2, dtype=torch.int64))
            pipeline.loss(*draw(pipeline, batch, generator_of(0, 0)))
            counts.append(counter.frame_count)
    assert counts == [counts[0] * place for place in range(1, 4)]
