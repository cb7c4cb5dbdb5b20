"""The average of the weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.ema import Ema


def test_every_parameter_is_averaged(pipeline: Pipeline) -> None:
    ema = Ema(pipeline, 10.0)
    before = {name: p.detach().clone() for name, p in pipeline.named_parameters()}
    with torch.no_grad():
        for p in pipeline.parameters():
            p.add_(1.0)
    ema.update(0)  # keeps a tenth
    with ema.applied():
        for name, p in pipeline.named_parameters():
            torch.testing.assert_close(p.detach(), before[name] + 0.9)
    for name, p in pipeline.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] + 1)


def test_the_average_is_a_weighted_sum_of_the_past() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, 4.0)
    expected = model.weight.item()
    for step in range(50):
        with torch.no_grad():
            model.weight.fill_(float(step % 7))
        ema.update(step)
        expected = ema.decay(step) * expected + (1 - ema.decay(step)) * (step % 7)
    assert ema.average[0].item() == pytest.approx(expected, rel=1e-5)


@given(st.integers(20, 100_000), st.floats(0.001, 0.5))
def test_the_first_weights_leave_no_trace(steps: int, share: float) -> None:
    ema = Ema(nn.Linear(1, 1), share * steps)
    kept = 1.0
    for step in range(min(steps, 2000)):
        kept *= ema.decay(step)
    assert kept < 1e-6
    assert ema.decay(10**9) == max(0.0, 1 - 1 / max(share * steps, 1.0))


def test_weights_come_back_when_something_fails_inside() -> None:
    model = nn.Linear(2, 2)
    ema = Ema(model, 10.0)
    with torch.no_grad():
        model.weight.fill_(3.0)
    with pytest.raises(RuntimeError), ema.applied():
        assert not torch.equal(model.weight, torch.full((2, 2), 3.0))
        raise RuntimeError
    assert torch.equal(model.weight, torch.full((2, 2), 3.0))
