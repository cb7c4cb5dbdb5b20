"""Every backbone, target, path, condition, space and sampler compose: one step of training, and a sample."""

from __future__ import annotations

from itertools import product
from pathlib import Path as FilePath
from typing import get_args

import pytest
import torch

from fromnoise.conditioning.config import ConditionerConfig, LabelConfig, NoConditionConfig, TextConfig
from fromnoise.core.types import Batch
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Cosine, Linear, Path
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.diffusion.target import TARGETS
from fromnoise.models.config import BackboneConfig, CNNConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig, PixelConfig, SpaceConfig
from fromnoise.training.step import accumulate_gradients, draw, generator_of

BACKBONES = {
    "mmdit": MMDiTConfig(patch=4, width=16, depth=2, head_width=8),
    "dit": DiTConfig(patch=4, width=16, depth=1, head_width=8),
    "crossdit": CrossDiTConfig(patch=4, width=16, depth=1, head_width=8),
    "unet": UNetConfig(width=8, multipliers=(1, 2), layers=1, attention=(1,), heads=2, groups=4),
    "cnn": CNNConfig(width=16),
}
PATHS = {"linear": Linear(), "cosine": Cosine(), "vp": VP()}
CONDITIONERS = {
    "none": NoConditionConfig(width=8),
    "label": LabelConfig(classes=2, width=8),
    "text": TextConfig(vocabulary=260, length=4, width=8, depth=1, heads=2),
}


def names(union: object) -> set[str]:
    """The types of a union of configs."""
    return {kind.model_fields["type"].default for kind in get_args(get_args(union)[0])}


def test_all_there_is_takes_part() -> None:
    assert names(BackboneConfig) == set(BACKBONES)
    assert names(Path) == set(PATHS)
    assert names(ConditionerConfig) == set(CONDITIONERS)
    assert names(SpaceConfig) == {PixelConfig().type, LatentConfig(path=FilePath()).type}
    assert set(get_args(Sampling.model_fields["sampler"].annotation)) == set(SAMPLERS)


@pytest.mark.parametrize(("backbone", "conditioner"), list(product(BACKBONES, CONDITIONERS)))
def test_every_combination_trains_a_step_and_draws(backbone: str, conditioner: str) -> None:
    captions = ["a one", "a two", "one", "two"]
    images = torch.rand(4, 1, 8, 8, generator=generator_of(0, 0)) * 2 - 1  # (B, C, S, S)
    batch = Batch(images, captions, torch.tensor([0, 1, 0, 1]))
    for path, target in product(PATHS, TARGETS):
        config = ModelConfig(
            backbone=BACKBONES[backbone],
            conditioner=CONDITIONERS[conditioner],
            objective=Objective(target=target, measure=target),  # type: ignore[arg-type]  # its names are TARGETS'
            path=PATHS[path],
            channels=1,
            size=8,
        )
        pipeline = Pipeline.build(config, captions, seed=0)
        accumulate_gradients(pipeline, draw(pipeline, batch, generator_of(0, 1)), 1, None)
        with torch.no_grad():
            for parameter in pipeline.parameters():
                if parameter.grad is not None:
                    assert parameter.grad.isfinite().all()
                    parameter -= 0.1 * parameter.grad
        for sampler in SAMPLERS:
            steps = list(pipeline.stream(["one", "two"], 2, 2.0, labels=[0, 1], sampler=sampler, precision="float32"))
            assert len(steps) == 2 and steps[-1].x.shape == (2, 1, 8, 8)
            assert all(step.x.isfinite().all() for step in steps), (path, target, sampler)
            assert steps[-1].x.std() > 1e-3, (path, target, sampler)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_trains_a_step_and_draws_in_latent_space(backbone: str, vae: FilePath) -> None:
    captions = ["a one", "a two"]
    images = torch.rand(2, 3, 16, 16, generator=generator_of(0, 0)) * 2 - 1  # (B, C, S, S)
    config = ModelConfig(
        backbone=BACKBONES[backbone], conditioner=CONDITIONERS["text"], space=LatentConfig(path=vae), size=16
    )
    pipeline = Pipeline.build(config, captions, seed=0)
    batch = Batch(images, captions, torch.tensor([0, 1]))
    accumulate_gradients(pipeline, draw(pipeline, batch, generator_of(0, 1)), 1, None)
    with torch.no_grad():
        for parameter in pipeline.parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all()
                parameter -= 0.1 * parameter.grad
    last = list(pipeline.stream(captions, 2, 2.0, precision="float32"))[-1]
    assert last.x.shape == (2, 4, 8, 8) and last.x.isfinite().all()
    assert [picture.size for picture in pipeline.pictures(last.x)] == [(16, 16)] * 2
