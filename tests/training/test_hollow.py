"""What a step is counted to hold, against closed forms and against what PyTorch's allocator gives out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from fromnoise.core.recompute import recompute
from fromnoise.core.types import Data
from fromnoise.nn.position import turns_of
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.drawing import Drawing
from fromnoise.training.hollow import Counted, count, hollow
from fromnoise.training.run import AdamW, Muon, Run
from fromnoise.training.step import accumulate_gradients

IN, OUT = 64, 48
OUTPUTS = 5  # live at most: that of the product, and four of the way back through its square


class Rows(NamedTuple):
    x: Tensor  # (B, IN)

    @property
    def size(self) -> int:
        return len(self.x)

    def rows(self, first: int, last: int) -> Rows:
        return Rows(self.x[first:last])


class Product(nn.Module):
    """One matrix, and the squares of what it gives."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(OUT, IN))

    def loss(self, x: Tensor) -> Tensor:
        return (x @ self.weight.T).square().mean(1)  # (B,)


def counted(batch: int, accumulate: int = 1) -> Counted:
    with hollow():
        return count(Product(), Rows(torch.ones(2, IN)), batch, accumulate, AdamW(), None)  # type: ignore[arg-type]


def test_activations_of_a_product_are_its_outputs_and_grow_with_the_batch() -> None:
    large = counted(1000)
    assert large.activations == pytest.approx(4 * OUT * 1000 * OUTPUTS, rel=0.03)
    per_row = (counted(3000).activations - counted(2000).activations) / 1000
    assert (counted(2000).activations - large.activations) / 1000 == pytest.approx(per_row)


def test_a_batch_in_parts_holds_the_activations_of_one_and_all_gradients() -> None:
    whole, halves = counted(4000), counted(4000, 2)
    assert halves.gradients == 4 * IN * OUT
    assert halves.activations == pytest.approx(whole.activations / 2, rel=0.05)
    eighths = counted(4000, 8)
    assert eighths.activations == pytest.approx(whole.activations / 8, rel=0.05)
    assert eighths.traffic == pytest.approx(whole.traffic, rel=0.25)  # weights are read for each part
    assert eighths.kernels - halves.kernels == pytest.approx(6 * (halves.kernels - whole.kernels), rel=0.03)


def test_modules_are_what_they_were() -> None:
    model = nn.Linear(3, 2)
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    with hollow(model):
        assert type(model.weight.data).__name__ == "FakeTensor"
        turns_of("rope", 2, 2, 3, 2, 8, 100.0, torch.device("cpu"))  # which keeps what it made
    for name, p in model.named_parameters():
        assert p is before[name][0] and torch.equal(p, before[name][1])
    assert model(torch.ones(1, 3)).isfinite().all()
    turn = turns_of("rope", 2, 2, 3, 2, 8, 100.0, torch.device("cpu")).image
    assert turn is not None and type(turn[0]) is Tensor


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_step_holds_what_the_allocator_gives_out(
    tiny_run: Callable[..., Run], shapes: Data, dtype: torch.dtype | None, again: bool
) -> None:
    run, batch = tiny_run(), 64
    model = run.model.model_copy(update={"backbone": run.model.backbone.model_copy(update={"depth": 6})})
    pipeline = Pipeline.build(model, shapes.captions(200), 0)
    recompute(pipeline.blocks(), again)
    trainee = Drawing(run, shapes, print)
    sample = trainee.trial(pipeline, batch)
    few = trainee.trial(pipeline, 2)
    with hollow(pipeline):
        said = count(pipeline, few, batch, 1, Muon(), dtype)
    accumulate_gradients(pipeline, sample, 1, dtype)  # what is made once and kept
    pipeline.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        accumulate_gradients(pipeline, sample, 1, dtype)
    assert said.activations + said.gradients == pytest.approx(most(watched), rel=0.15)


def most(watched: Any) -> int:
    events = [one for one in watched.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
