"""Small models with weights that say something, and run directories of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fromnoise.conditioning.config import ConditionerConfig, LabelConfig, NoConditionConfig, TextConfig
from fromnoise.core.config import write_yaml
from fromnoise.data.config import MNISTConfig, ShapesConfig
from fromnoise.data.mnist import TEMPLATES, WORDS
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP
from fromnoise.diffusion.path import Path as DiffusionPath
from fromnoise.models.config import BackboneConfig, CNNConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.subject import Subject
from fromnoise.training.run import Run
from tests.conftest import stirred

CAPTIONS = [template.format(word=word, digit=i) for i, word in enumerate(WORDS) for template in TEMPLATES]
BACKBONES: dict[str, BackboneConfig] = {
    "mmdit": MMDiTConfig(patch=4, width=16, depth=2, head_width=8),
    "dit": DiTConfig(patch=4, width=16, depth=1, head_width=8),
    "crossdit": CrossDiTConfig(patch=4, width=16, depth=2, head_width=8),
    "unet": UNetConfig(width=8, multipliers=(1, 2), layers=1, attention=(0, 1), heads=2, groups=4),
    "cnn": CNNConfig(width=16),
}
CONDITIONERS: dict[str, ConditionerConfig] = {
    "none": NoConditionConfig(width=8),
    "label": LabelConfig(classes=10, width=8),
    "text": TextConfig(vocabulary=400, length=12, width=8, depth=1, heads=2),
}


def built(backbone: str, conditioner: str, path: DiffusionPath | None = None) -> Pipeline:
    """A pipeline of 16 x 16 pixels whose weights are all moved from where they start, so that nothing is 0."""
    config = ModelConfig(
        backbone=BACKBONES[backbone],
        conditioner=CONDITIONERS[conditioner],
        objective=Objective(target="v", measure="v"),
        path=path or VP(),
        sampling=Sampling(sampler="ddim", steps=4, guidance=2.0, shift=2.0),
        channels=1,
        size=16,
    )
    return stirred(Pipeline.build(config, CAPTIONS, seed=0).eval(), 0.1)


@pytest.fixture
def build() -> Callable[..., Pipeline]:
    """Makes a small pipeline."""
    return built


@pytest.fixture
def subject() -> Callable[..., Subject]:
    """Makes the subject of a small model, with a run that says its data, or none."""

    def make(backbone: str = "mmdit", conditioner: str = "text", data: str | None = "mnist") -> Subject:
        pipeline = built(backbone, conditioner)
        kinds = {"mnist": MNISTConfig(), "shapes": ShapesConfig()}
        run = Run(data=kinds[data], model=pipeline.config) if data else None
        return Subject("small", pipeline.config, pipeline, run, {"checkpoint": "abc"})

    return make


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory of a small model."""

    def make(backbone: str = "mmdit", conditioner: str = "text", name: str = "small") -> Path:
        pipeline = built(backbone, conditioner)
        step = tmp_path / name / "checkpoints" / "step-00000001"
        step.mkdir(parents=True)
        for file in ("model", "ema"):
            pipeline.save(step / f"{file}.safetensors", {})
        write_yaml(Run(data=MNISTConfig(), model=pipeline.config), tmp_path / name / "run.yaml")
        return tmp_path / name

    return make
