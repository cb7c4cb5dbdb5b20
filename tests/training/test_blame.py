"""Where a loss stopped being finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.blame import find_fault
from fromnoise.training.step import Sample, draw, generator_of


@pytest.fixture
def sample(pipeline: Pipeline, shapes: Any) -> Sample:
    return draw(pipeline, shapes.train(0, 6), generator_of(0, 0))


def test_the_first_module_is_named_with_the_sample_and_its_time(pipeline: Pipeline, sample: Sample) -> None:
    with torch.no_grad():
        pipeline.get_parameter("backbone.transformer_blocks.1.img_mlp.net.2.weight").fill_(float("nan"))
    fault = find_fault(pipeline, sample, 1, None)
    assert fault == f"sample 0 of 6 (t={float(sample.t[0]):.4g}), output of backbone.transformer_blocks.1.img_mlp.net.2"


def test_a_sample_is_told_from_its_neighbours(pipeline: Pipeline, sample: Sample) -> None:
    sample.z[4, 0, 3, 3] = float("inf")
    told = f"sample 4 of 6 (t={float(sample.t[4]):.4g}), the picture of sample 4"
    assert find_fault(pipeline, sample, 1, None) == told
    sample.z[4] = 0
    sample.eps[2, 0, 0, 0] = float("nan")
    assert "the noise of sample 2" in find_fault(pipeline, sample, 1, None)


def test_no_more_goes_through_the_model_at_once_than_in_the_step_itself(pipeline: Pipeline, sample: Sample) -> None:
    rows = list[int]()
    pipeline.backbone.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    with torch.no_grad():
        pipeline.get_parameter("backbone.transformer_blocks.1.img_mlp.net.2.weight").fill_(float("nan"))
    whole, apart = (find_fault(pipeline, sample, parts, None) for parts in (1, 3))
    assert rows == [6, 2, 2, 2] and apart == whole


def test_a_fault_of_the_text_is_found_there(pipeline: Pipeline, sample: Sample) -> None:
    with torch.no_grad():
        pipeline.conditioner.embedding.weight.fill_(float("inf"))
    assert find_fault(pipeline, sample, 1, None).endswith("output of conditioner.embedding")


def test_an_overflow_of_the_backward_pass_alone_is_found(pipeline: Pipeline, sample: Sample) -> None:
    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")

    pipeline.backbone.proj_out.weight.register_hook(overflow)
    assert find_fault(pipeline, sample, 1, None) == "gradient of backbone.proj_out.weight"


def test_no_watcher_stays_behind(pipeline: Pipeline, sample: Sample) -> None:
    find_fault(pipeline, sample, 1, None)
    assert not any(module._forward_hooks for module in pipeline.modules())
