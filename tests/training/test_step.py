"""One step: its chances, its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.step import Sample, accumulate_gradients, clip_gradients, draw, generator_of


def sample_of(pipeline: Pipeline, shapes: Any, step: int = 0, size: int = 12) -> Sample:
    return draw(pipeline, shapes.train(step, size), generator_of(0, step))


def test_chance_is_a_function_of_seed_and_step(pipeline: Pipeline, shapes: Any) -> None:
    a, b = sample_of(pipeline, shapes, 5), sample_of(pipeline, shapes, 5)
    assert torch.equal(a.eps, b.eps) and torch.equal(a.t, b.t) and torch.equal(a.keep, b.keep) and torch.equal(a.z, b.z)
    other = sample_of(pipeline, shapes, 6)
    assert not torch.equal(a.eps, other.eps) and not torch.equal(a.t, other.t)
    first = {torch.rand(1, generator=generator_of(seed, step)).item() for seed in range(20) for step in range(20)}
    assert len(first) == 400


def test_prompts_are_dropped_as_often_as_asked(pipeline: Pipeline, shapes: Any) -> None:
    kept = [draw(pipeline, shapes.train(0, 4), generator_of(0, step)).keep for step in range(500)]
    assert torch.cat(kept).float().mean().item() == pytest.approx(0.9, abs=0.02)


def test_accumulated_gradients_are_those_of_the_whole_batch(pipeline: Pipeline, shapes: Any) -> None:
    sample = sample_of(pipeline, shapes)
    whole = accumulate_gradients(pipeline, sample, 1, None)
    expected = {name: p.grad.clone() for name, p in pipeline.named_parameters() if p.grad is not None}
    pipeline.zero_grad()
    parts = accumulate_gradients(pipeline, sample, 4, None)
    torch.testing.assert_close(parts, whole)
    for name, p in pipeline.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].abs().max()))


def test_every_parameter_gets_a_gradient(pipeline: Pipeline, shapes: Any) -> None:
    sample = sample_of(pipeline, shapes)
    accumulate_gradients(pipeline, sample._replace(keep=torch.arange(12) < 8), 1, None)
    dead = [name for name, p in pipeline.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not dead


def test_clipping_keeps_direction_and_bounds_the_norm(pipeline: Pipeline, shapes: Any) -> None:
    accumulate_gradients(pipeline, sample_of(pipeline, shapes), 1, None)
    before = torch.cat([p.grad.flatten() for p in pipeline.parameters() if p.grad is not None])
    norm = clip_gradients(pipeline, 0.5)
    after = torch.cat([p.grad.flatten() for p in pipeline.parameters() if p.grad is not None])
    torch.testing.assert_close(norm, before.norm())
    torch.testing.assert_close(after, before * (0.5 / before.norm()), rtol=1e-4, atol=1e-8)


def test_masters_and_losses_stay_float32_under_autocast(pipeline: Pipeline, shapes: Any) -> None:
    losses = accumulate_gradients(pipeline, sample_of(pipeline, shapes), 1, torch.bfloat16)
    assert losses.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in pipeline.parameters() if p.grad is not None)
