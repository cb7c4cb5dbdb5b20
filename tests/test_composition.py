"""Every backbone, target, path, condition, space and sampler compose: one step of training, and a sample."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from fromnoise.conditioning import config as conditioning
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, LabelConfig, NoConditionConfig, TextConfig
from fromnoise.core.config import name_of
from fromnoise.core.types import Batch
from fromnoise.diffusion import path as paths
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Cosine, Linear
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.diffusion.target import TARGETS
from fromnoise.models import config as models
from fromnoise.models.config import CNNConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space import config as spaces
from fromnoise.space.config import LatentConfig
from fromnoise.training.step import accumulate_gradients, draw, generator_of
from tests.conftest import stirred

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


def test_all_there_is_takes_part() -> None:
    assert set(map(name_of, models.BACKBONES)) == set(BACKBONES)
    assert set(map(name_of, paths.PATHS)) == set(PATHS)
    assert set(map(name_of, conditioning.CONDITIONERS)) == {*CONDITIONERS, "frozen_text"}
    assert set(map(name_of, spaces.SPACES)) == {"pixel", "latent"}


@pytest.mark.parametrize(("backbone", "conditioner"), list(product(BACKBONES, CONDITIONERS)))
def test_every_combination_trains_a_step_and_draws(backbone: str, conditioner: str) -> None:
    captions = ["a one", "a two", "one", "two"]
    images = torch.rand(4, 1, 8, 8, generator=generator_of(0, 0)) * 2 - 1  # (B, C, S, S)
    batch = Batch(images, captions, torch.tensor([0, 1, 0, 1]))
    for path, target in product(PATHS, TARGETS):
        config = ModelConfig(
            backbone=BACKBONES[backbone],
            conditioner=CONDITIONERS[conditioner],
            objective=Objective(target=target, measure=target),
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
def test_every_backbone_trains_a_step_and_draws_in_latent_space(backbone: str, vae: Path) -> None:
    captions = ["a one", "a two"]
    images = torch.rand(2, 3, 16, 16, generator=generator_of(0, 0)) * 2 - 1  # (B, C, S, S)
    space = LatentConfig(path=vae, shift=(0.0,), scale=(0.5,))
    config = ModelConfig(backbone=BACKBONES[backbone], conditioner=CONDITIONERS["text"], space=space, size=16)
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


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_trains_a_step_and_draws_what_frozen_encoders_read(
    backbone: str, save_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [save_encoder(tmp_path / kind, kind) for kind in ("t5", "bert")]
    encoders = tuple(EncoderConfig(path=str(path), length=6, dropout=0.5) for path in paths)
    config = ModelConfig(
        backbone=BACKBONES[backbone], conditioner=FrozenTextConfig(encoders=encoders, width=8), channels=1, size=8
    )
    captions = ["a one", "a two", "one", "two"]
    images = torch.rand(4, 1, 8, 8, generator=generator_of(0, 0)) * 2 - 1  # (B, C, S, S)
    pipeline = stirred(Pipeline.build(config, captions, seed=0), 0.1)  # what starts at 0 lets no gradient through
    sample = draw(pipeline, Batch(images, captions, torch.zeros(4, dtype=torch.int64)), generator_of(0, 1))
    accumulate_gradients(pipeline, sample, 1, None)
    for name, parameter in pipeline.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for parameter in pipeline.conditioner.parameters():
        assert parameter.grad.abs().max() > 0
    last = list(pipeline.stream(["one", ""], 2, 2.0, precision="float32"))[-1]
    assert last.x.shape == (2, 1, 8, 8) and last.x.isfinite().all() and last.x.std() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_matrices_cast_once_are_those_that_autocast_casts(backbone: str) -> None:
    config = ModelConfig(backbone=BACKBONES[backbone], conditioner=CONDITIONERS["label"], channels=1, size=8)
    pipeline = Pipeline.build(config, [], seed=0)
    stirred(pipeline.backbone, 0.1)
    x, t = torch.randn(2, 1, 8, 8, generator=generator_of(0, 0)), torch.tensor([0.3, 0.9])
    cond = pipeline.conditioner(pipeline.conditioner.encode(["0", "1"], torch.tensor([0, 1])))
    with torch.autocast("cpu", torch.bfloat16):
        expected = pipeline.backbone(x, t, cond).float()
    assert torch.equal(pipeline.network(torch.bfloat16)(x, t, cond), expected)
