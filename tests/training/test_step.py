"""One step: its chances, its gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.core.ranks import Alone
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig
from fromnoise.training.drawing import Drawing
from fromnoise.training.run import Run
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


def gradients(pipeline: Pipeline) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in pipeline.parameters() if p.grad is not None])


def test_clipping_keeps_direction_and_bounds_the_norm(pipeline: Pipeline, shapes: Any) -> None:
    accumulate_gradients(pipeline, sample_of(pipeline, shapes), 1, None)
    before = gradients(pipeline)
    norm = clip_gradients(pipeline, 0.5)
    assert norm == pytest.approx(float(before.norm())) and norm > 0.5
    torch.testing.assert_close(gradients(pipeline), before * (0.5 / norm), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("most", [1e-3, 0.1, 0.999999, 1.0, 1.0000001, 1.00001, 3.0, 100.0])
def test_clipping_is_pytorchs_to_the_bit(pipeline: Pipeline, shapes: Any, most: float) -> None:
    """Around the norm itself, too, where it decides whether to touch them."""
    accumulate_gradients(pipeline, sample_of(pipeline, shapes), 1, None)
    most *= float(torch.nn.utils.get_total_norm([p.grad for p in pipeline.parameters() if p.grad is not None]))
    expected = copy.deepcopy(pipeline)
    for p, same in zip(pipeline.parameters(), expected.parameters(), strict=True):
        same.grad = None if p.grad is None else p.grad.clone()
    norm = clip_gradients(pipeline, most)
    assert norm == float(torch.nn.utils.clip_grad_norm_(expected.parameters(), most))
    assert torch.equal(gradients(pipeline), gradients(expected))


def test_masters_and_losses_stay_float32_under_autocast(pipeline: Pipeline, shapes: Any) -> None:
    losses = accumulate_gradients(pipeline, sample_of(pipeline, shapes), 1, torch.bfloat16)
    assert losses.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in pipeline.parameters() if p.grad is not None)


class Of(Alone):
    """One process of several, which need not be there to say what its share is."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size


@pytest.mark.parametrize("latent", [False, True])
def test_processes_get_their_rows_of_the_sample_that_one_would_draw(
    tiny_run: Callable[..., Run], shapes: Any, pipeline: Pipeline, vae: Path, latent: bool
) -> None:
    if latent:
        space = LatentConfig(path=vae, shift=(0.0,) * 4, scale=(1.0,) * 4)
        pipeline = Pipeline.build(tiny_run().model.model_copy(update={"space": space}), shapes.captions(50), 0)
    whole = Drawing(tiny_run(), shapes, print).draw(pipeline, 3, 12)
    for rank in range(3):
        own = Drawing(tiny_run(), shapes, print, Of(rank, 3)).draw(pipeline, 3, 12)
        wanted = whole.rows(4 * rank, 4 * rank + 4)
        assert own.t.equal(wanted.t) and own.eps.equal(wanted.eps) and own.keep.equal(wanted.keep)
        torch.testing.assert_close(own.z, wanted.z)
        for key, value in own.features.items():
            assert value.equal(wanted.features[key][:, : value.shape[1]])  # captions of others may be longer


def test_a_process_encodes_its_own_rows_only(
    tiny_run: Callable[..., Run], shapes: Any, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, encode = list[int](), pipeline.space.encode
    monkeypatch.setattr(pipeline.space, "encode", lambda images: seen.append(len(images)) or encode(images))
    Drawing(tiny_run(), shapes, print, Of(1, 3)).draw(pipeline, 3, 12)
    assert seen == [4]
