"""What steps come to, on a device that is told of them ahead: a GPU's part of the loop, run on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fromnoise.core.files import load_tensors
from fromnoise.core.ranks import ALONE
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import drawing, loop, outcomes, step
from fromnoise.training.checkpoint import Progress
from fromnoise.training.loop import train
from fromnoise.training.optim import Optimizer
from fromnoise.training.outcomes import Outcomes
from fromnoise.training.run import AdamW, Muon
from tests.training.conftest import spoilt

Making = Callable[..., Any]


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU is taken for a device that is told of work ahead of what it does."""
    for module in (outcomes, step):
        monkeypatch.setattr(module, "queues", lambda device: True)


class Reads(TorchDispatchMode):
    """Counts how often a number is read, which waits for a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def told(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "loss", "gradient_norm")} for line in lines if "loss" in line]


def refuse(step: int, losses: list[float]) -> None:
    raise ValueError(f"step {step} came to {losses}")


@pytest.mark.parametrize("optimizer", [Muon(), AdamW()])
def test_steps_told_ahead_come_to_the_same(tmp_path: Path, tiny_run: Making, request: Any, optimizer: Any) -> None:
    run = tiny_run(optimizer=optimizer, log_every=3, save_every=4)
    one = train(run, tmp_path / "one")
    request.getfixturevalue("queued")
    other = train(run, tmp_path / "other")
    assert told(tmp_path / "one") == told(tmp_path / "other") and len(told(tmp_path / "one")) == 2
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.usefixtures("queued")
def test_no_number_is_read_between_two_lines(tmp_path: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, counts = Reads(), list[int]()
    real = loop.accumulate_gradients

    def counting(*given: Any) -> Any:
        counts.append(reads.count)
        return real(*given)

    monkeypatch.setattr(loop, "accumulate_gradients", counting)
    with reads:
        train(tiny_run(steps=9, log_every=3), tmp_path)
    steps = counts[-9:]  # before them, the FLOPs of one were counted
    read = [after > before for before, after in pairwise(steps)]
    assert read == [False, False, True, False, False, True, False, False]


@pytest.mark.usefixtures("queued")
@pytest.mark.parametrize("optimizer", [Muon(), AdamW()])
def test_a_loss_that_is_no_number_is_found_late_with_the_weights_it_came_from(
    tmp_path: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch, optimizer: Any
) -> None:
    """Of step 4, read after step 6; a module of those weights would not be the first fault with any later ones."""
    real_fault, saved = loop.find_fault, list[Any]()

    def found(model: Pipeline, *given: Any) -> str:
        saved.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return real_fault(model, *given)

    monkeypatch.setattr(drawing, "draw", spoilt(0, 4, 2))
    monkeypatch.setattr(loop, "find_fault", found)
    run = tiny_run(steps=8, log_every=6, save_every=4, optimizer=optimizer, ema=0.5)
    with pytest.raises(ValueError, match=r"^the loss is not finite at step 4: first in sample 2 of 4 .*the noise of"):
        train(run, tmp_path)
    assert [place.name for place in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    weights, _ = load_tensors(tmp_path / "checkpoints" / "step-00000004" / "model.safetensors")
    assert saved[0].keys() <= weights.keys() and all(p.equal(weights[name]) for name, p in saved[0].items())


@pytest.mark.usefixtures("queued")
def test_what_broke_once_stays_broken() -> None:
    progress = Progress(step=7)
    found = Outcomes(progress, torch.device("cpu"), ALONE, refuse)
    fine, nan = torch.ones(4), torch.tensor([1.0, float("nan")])
    seen = []
    for losses, norm in ((fine, 2.0), (fine, 3.0), (nan, 1.0), (fine, 1.0)):
        found.add(losses, torch.tensor(norm))
        seen.append(float(found.broken))  # type: ignore[arg-type]
    assert seen == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"^step 9 came to \[nan\]$"):
        found.read()
    assert progress.losses == [1.0, 1.0] and found.norm == 3.0


def test_on_a_cpu_they_are_read_at_once() -> None:
    progress = Progress()
    found = Outcomes(progress, torch.device("cpu"), ALONE, refuse)
    found.add(torch.tensor([1.0, 2.0]), torch.tensor(0.25))
    assert progress.losses == [1.5] and found.norm == 0.25 and found.broken is None
    with pytest.raises(ValueError, match=r"^step 1 came to \[1.0\]$"):
        found.add(torch.ones(2), torch.tensor(float("inf")))


@pytest.mark.parametrize("config", [Muon(), Muon(weight_decay=0.1), AdamW(), AdamW(weight_decay=0.1)])
def test_a_broken_step_moves_no_weight(pipeline: Pipeline, config: Any) -> None:
    optimizer = Optimizer(pipeline, config)
    for p in pipeline.parameters():
        p.grad = torch.full_like(p, float("nan"))
    before = [p.detach().clone() for p in pipeline.parameters()]
    optimizer.step(1.0, torch.ones(()))
    assert all(torch.equal(p, old) for p, old in zip(pipeline.parameters(), before, strict=True))
    for p in pipeline.parameters():
        p.grad = torch.ones_like(p)
    Optimizer(pipeline, config).step(1.0, torch.zeros(()))
    assert not any(torch.equal(p, old) for p, old in zip(pipeline.parameters(), before, strict=True))
