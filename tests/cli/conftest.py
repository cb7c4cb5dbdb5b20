"""A small model and a small folder of pictures, real enough to draw with and to train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fromnoise.conditioning.config import TextConfig
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline

MODEL = ModelConfig(
    backbone=MMDiTConfig(patch=8, width=16, depth=1, head_width=8),
    conditioner=TextConfig(vocabulary=280, width=16, depth=1, heads=1),
    sampling=Sampling(steps=3, guidance=2),
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose last checkpoint holds two different sets of weights."""
    run = tmp_path_factory.mktemp("run")
    for step in (5, 10):
        path = run / "checkpoints" / f"step-{step:08}"
        path.mkdir(parents=True)
        for seed, name in enumerate(("model", "ema")):
            Pipeline.build(MODEL, ["a red circle", "a blue square"], seed + step).save(path / f"{name}.safetensors", {})
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures with a caption beside each."""
    path = tmp_path / "data"
    path.mkdir()
    for color in ("red", "lime", "blue", "black"):
        Image.new("RGB", (16, 16), color).save(path / f"{color}.png")
        (path / f"{color}.txt").write_text(f"all {color}")
    return path
