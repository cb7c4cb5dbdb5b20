"""What a training says it will need."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fromnoise.core.types import Data
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.drawing import Drawing
from fromnoise.training.estimate import Left, Pace, Resident, Spent, left, measure_pace, resident, spent
from fromnoise.training.loop import train
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import AdamW, Muon, Run
from fromnoise.training.trainee import Looks

Making = Callable[..., Run]
NEEDS = (
    r"6 steps of 4 need about 0:\d\d, validations \(3\) and previews \(1\) among it, [\d.]+ [MG]iB of memory and "
    r"([\d.]+) MiB on disk"
)


def test_disk_is_told_before_the_first_step_and_is_what_checkpoints_take(
    tmp_path: Path, tiny_run: Making, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_run(keep=2, save_every=2, steps=6, optimizer=AdamW()), tmp_path / "run")
    said = capsys.readouterr().err
    found = re.search(NEEDS, said)
    assert found and said.index("on disk") < said.index("step 6/6")
    taken = sum(file.stat().st_size for file in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"))
    assert float(found[1]) * 2**20 == pytest.approx(1.5 * taken, rel=0.2)  # two are kept while a third is written

    train(tiny_run(keep=2, save_every=2, steps=6, optimizer=AdamW()), tmp_path / "run")
    assert "on disk" not in capsys.readouterr().err  # there is nothing left to do


def test_a_disk_without_room_is_refused_before_the_first_step(
    tmp_path: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("fromnoise.core.needs.shutil.disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"^.*/run needs about [\d.]+ MiB, and its disk has 1,?000 bytes free; choose"):
        train(tiny_run(), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_what_is_left_is_counted_as_the_loop_counts_it(tiny_run: Making) -> None:
    for steps, every in ((10, 3), (9, 3), (7, 10), (1, 1)):
        training = tiny_run(steps=steps, validate_every=every, preview_every=every, save_every=every).training
        for done in range(steps + 1):
            comes = sum(training.due(step, every) for step in range(done + 1, steps + 1))
            assert left(training, done) == Left(steps - done, comes + (done == 0), comes, comes)


def test_adamw_holds_two_moments_of_a_weight_and_muon_one_of_its_matrices() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(8, 4)]), "out": nn.Linear(4, 2)})
    inside, rest = 8 * 4, 4 + 4 * 2 + 2
    weights = 4 * (inside + rest)
    assert resident(model, AdamW()) == Resident(weights, weights, 4 * 2 * (inside + rest))
    assert resident(model, Muon()) == Resident(weights, weights, 4 * (inside + 2 * rest))
    for config in (AdamW(), Muon()):
        optimizer = Optimizer(model, config)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step(1.0)
        held = sum(4 * x.numel() for key, x in optimizer.tensors().items() if not key.startswith("step/"))
        assert resident(model, config).moments == held


def test_time_is_what_its_parts_are() -> None:
    looks = Looks(validation=400, preview=1000, end=50, pictures=16)
    assert spent(Left(100, 3, 2, 2), Pace(0.5, 0.01), looks) == Spent(50.0, 12.0, 20.0, 0.5)


def test_timing_a_step_leaves_weights_as_they_are_to_the_last_bit(
    tiny_run: Making, shapes: Data, pipeline: Pipeline
) -> None:
    before = [p.detach().clone() for p in pipeline.parameters()]
    pace = measure_pace(Drawing(tiny_run(), shapes, print), pipeline, 4, None)
    assert pace.row > 0 and 0 < pace.step < 60
    for p, kept in zip(pipeline.parameters(), before, strict=True):
        assert torch.equal(p, kept) and p.grad is None
