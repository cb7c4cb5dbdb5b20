"""Runs that are examined in a moment, and faults that are planted in the package's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.autoencoder.config import AutoencoderConfig, Loss
from fromnoise.conditioning.config import TextConfig
from fromnoise.data.config import ShapesConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.doctor import subject as subjects
from fromnoise.doctor.finding import Finding
from fromnoise.doctor.subject import Subject
from fromnoise.models.config import MMDiTConfig, VAEConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.training import drawing
from fromnoise.training.run import Run, Training, TrainingBase, VAERun

MODEL = ModelConfig(
    backbone=MMDiTConfig(patch=8, width=32, depth=2, head_width=16, pooled=True, rope_theta=100.0),
    conditioner=TextConfig(width=16, depth=1, heads=2, vocabulary=400),
    objective=Objective(target="flow", measure="flow"),
    sampling=Sampling(sampler="euler", steps=10, guidance=3.0),
)
TRAINING = Training(steps=200, batch=8, warmup=10, device="cpu", precision="float32", compile="off")


def make_run(data: Any = None, training: Any = None, **model: Any) -> Run:
    """A tiny run of shapes; `model` replaces fields of its model."""
    return Run(
        data=data or ShapesConfig(),
        model=MODEL.model_copy(update=model),
        training=training or TRAINING,
    )


@pytest.fixture(autouse=True)
def few_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small vocabulary is learned from few captions."""
    monkeypatch.setattr(drawing, "CAPTIONS", 200)


@pytest.fixture
def examined() -> Iterator[Callable[..., Subject]]:
    """`examined(run)`: the run as the doctor has it before him; faults are planted before or after."""
    torch.manual_seed(0)

    def of(run: Run | VAERun | None = None, directory: Path | None = None, **model: Any) -> Subject:
        return subjects.of_run("a run", run or make_run(**model), directory, {})

    yield of


@pytest.fixture
def vae_run() -> VAERun:
    """A tiny VAE that halves the side of shapes three times."""
    model = AutoencoderConfig(vae=VAEConfig(width=8, multipliers=(1, 1, 1, 1), layers=1, groups=4), loss=Loss(kl=1e-3))
    training = TrainingBase(**TRAINING.model_dump(exclude={"previews"}))
    return VAERun(data=ShapesConfig(), model=model, training=training)


def wrong(finding: Finding | None, *words: str) -> None:
    """Find that a check says that something is wrong, with these words in what it measured."""
    assert finding is not None
    assert finding.level == "wrong", finding
    assert all(word in finding.number for word in words), finding
    assert finding.why and finding.remedy


def fine(finding: Finding | None) -> None:
    """Find that a check is content."""
    assert finding is not None
    assert finding.level == "fine", finding


@pytest.fixture
def tiny() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def is_wrong() -> Callable[..., None]:
    return wrong


@pytest.fixture
def is_fine() -> Callable[..., None]:
    return fine
