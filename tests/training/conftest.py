"""A run that trains in a second."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from fromnoise.autoencoder.config import AutoencoderConfig, Loss
from fromnoise.conditioning.config import TextConfig
from fromnoise.data.config import ShapesConfig
from fromnoise.models.config import MMDiTConfig, VAEConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import drawing
from fromnoise.training.run import Run, Training, TrainingBase, VAERun
from tests.conftest import stirred


def make_run(**training: Any) -> Run:
    """A tiny run; `training` replaces fields of `Training`."""
    model = ModelConfig(
        backbone=MMDiTConfig(width=16, depth=2, head_width=8, patch=8),
        conditioner=TextConfig(width=16, depth=1, heads=2, vocabulary=300),
        sampling=Sampling(steps=1, guidance=1.0),
    )
    usual = {"steps": 6, "batch": 4, "precision": "float32", "compile": "off", "device": "cpu", "log_every": 2}
    every = {"save_every": 2, "validate_every": 3, "preview_every": 6, "previews": ("a red circle",), "keep": 2}
    return Run(model=model, training=Training(**(usual | every | training)))


def spoilt(seed: int, step: int, row: int) -> Callable[..., Any]:
    """What draws samples as trainings do, but with infinite noise in a row of this step's, of a training by `seed`."""
    real, whose = drawing.draw, drawing.generator_of(seed, step).initial_seed()

    def draw(pipeline: Pipeline, batch: Any, generator: torch.Generator) -> Any:
        sample = real(pipeline, batch, generator)
        if generator.initial_seed() == whose:
            sample.eps[row, 0, 0, 0] = float("inf")
        return sample

    return draw


@pytest.fixture(scope="session")
def tiny_run() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def tiny_vae_run() -> Callable[..., VAERun]:
    """The same of a VAE that halves the side."""

    def make(**training: Any) -> VAERun:
        model = AutoencoderConfig(vae=VAEConfig(width=8, multipliers=(1, 2), layers=1, groups=4), loss=Loss(kl=0.01))
        usual = make_run(**training).training.model_dump(exclude={"previews"})
        return VAERun(data=ShapesConfig(), model=model, training=TrainingBase(**usual))

    return make


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`with full_disk(size)`: the kernel refuses any file to grow beyond `size` bytes."""

    @contextmanager
    def full(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture
def shapes():
    return ShapesConfig().build(0)


@pytest.fixture
def pipeline(shapes: Any) -> Pipeline:
    """Fresh, but with no weight at zero, so that every part of it matters."""
    return stirred(Pipeline.build(make_run().model, shapes.captions(200), 0), 0.05)
