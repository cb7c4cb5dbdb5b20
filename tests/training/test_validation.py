"""The validation loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fromnoise.data.labelled import Labelled, LabelledData
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.ema import Ema
from fromnoise.training.validation import BINS, PER_BIN, Validation


def test_samples_are_fixed_stratified_and_keep_their_prompts(pipeline: Pipeline, shapes: Any) -> None:
    validation, again = Validation(pipeline, shapes), Validation(pipeline, shapes)
    for a, b in zip(validation.chunks, again.chunks, strict=True):
        assert torch.equal(a.z, b.z) and torch.equal(a.eps, b.eps) and torch.equal(a.t, b.t)
    t = torch.cat([chunk.t for chunk in validation.chunks])
    assert t.min() > 0 and t.max() < 1
    assert torch.equal((t * BINS).long().bincount(), torch.full((BINS,), PER_BIN))
    assert all(bool(chunk.keep.all()) for chunk in validation.chunks)


def of_levels(pipeline: Pipeline, count: int) -> tuple[Validation, torch.Tensor]:
    """On `count` held-out pictures, each of a grey level of its own; and the levels of the samples."""
    side = pipeline.config.size
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 3, side, side))
    some = Labelled(images, np.zeros(count, np.uint8))
    validation = Validation(pipeline, LabelledData(some, some, lambda: some, [["a red circle"]], 0, flip=False))
    return validation, torch.cat([chunk.z[:, 0, 0, 0] for chunk in validation.chunks])


@pytest.mark.parametrize(("held_out", "seen"), [(1, 1), (5, 5), (7, 7), (10, 10), (20, 20), (24, 20)])
def test_every_tenth_of_the_time_sees_all_pictures_that_go_round(pipeline: Pipeline, held_out: int, seen: int) -> None:
    validation, levels = of_levels(pipeline, held_out)
    t = torch.cat([chunk.t for chunk in validation.chunks])
    assert torch.equal((t * BINS).long(), validation.bins)
    assert torch.equal(validation.bins.bincount(), torch.full((BINS,), PER_BIN))
    assert {len(levels[validation.bins == i].unique()) for i in range(BINS)} == {seen}


def test_where_no_picture_comes_again_the_tenths_go_round(pipeline: Pipeline) -> None:
    validation, _ = of_levels(pipeline, BINS * PER_BIN)
    assert torch.equal(validation.bins, torch.arange(BINS * PER_BIN) % BINS)


def test_the_bins_are_those_of_the_samples_losses(pipeline: Pipeline, shapes: Any) -> None:
    validation = Validation(pipeline, shapes)
    told = validation.losses(pipeline, Ema(pipeline, 10.0), None)
    with torch.no_grad():
        losses = torch.cat([pipeline.loss(*chunk) for chunk in validation.chunks])
    t = torch.cat([chunk.t for chunk in validation.chunks])
    for i in range(BINS):
        expected = losses[(t >= i / BINS) & (t < (i + 1) / BINS)].mean().item()
        assert told["validation_raw_by_time"][i] == pytest.approx(expected)  # type: ignore[index]
    assert told["validation_raw"] == pytest.approx(losses.mean().item())
    assert told["validation_ema"] == told["validation_raw"]


def test_raw_and_averaged_weights_are_told_apart(pipeline: Pipeline, shapes: Any) -> None:
    ema = Ema(pipeline, 10.0)
    validation = Validation(pipeline, shapes)
    before = validation.losses(pipeline, ema, None)
    with torch.no_grad():
        for p in pipeline.parameters():
            p.mul_(2.0)
    after = validation.losses(pipeline, ema, None)
    assert after["validation_ema"] == before["validation_ema"]
    assert after["validation_raw"] != before["validation_raw"]
