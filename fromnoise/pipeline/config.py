"""What a checkpoint must know to draw: one frozen tree. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Annotated

from pydantic import Field, PositiveInt

from fromnoise.conditioning.config import CONDITIONERS, ConditionerConfig, TextConfig
from fromnoise.core.config import Config, Kind, Name
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import PATHS, Linear, Path
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.models.config import BACKBONES, BackboneConfig, MMDiTConfig
from fromnoise.space.config import SPACES, PixelConfig, SpaceConfig


class Sampling(Config):
    """How pictures are drawn when nothing else is asked for."""

    sampler: Annotated[str, Name(SAMPLERS)] = "euler"
    """Name of the sampler."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 28
    """Steps from noise to picture (heun asks the network twice a step, rk4 four times)."""
    guidance: Annotated[float, Field(ge=0, le=100)] = 4.0
    """Classifier-free guidance scale: 0 unconditional, 1 conditional, more follows the prompt harder."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance is applied (0 data, 1 noise)."""
    shift: Annotated[float, Field(gt=0)] = 1.0
    """Moves the steps towards noise (> 1) or data (< 1): t' = s t / (1 + (s - 1) t)."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of fresh noise in ddim: 0 deterministic, 1 ancestral."""

    def words(self) -> str:
        """In a line: "ddim, 24 steps, guidance 3 from 0 to 0.8"."""
        low, high = self.interval
        return f"{self.sampler}, {self.steps} steps, guidance {self.guidance:g} from {low:g} to {high:g}"


def sides(text: str) -> tuple[int, int]:
    """Height and width of "64" or "64x96"; ValueError in one line where it is neither."""
    if not re.fullmatch(r"\d{1,4}(x\d{1,4})?", text):
        raise ValueError(f"given {text!r}; allowed: a side in pixels, as in 64, or HEIGHTxWIDTH, as in 64x96")
    height, _, width = text.partition("x")
    return int(height), int(width or height)


class ModelConfig(Config):
    """Backbone, conditioner, space, path and objective: what is trained, and how it draws."""

    backbone: Annotated[BackboneConfig, Kind(BACKBONES)] = MMDiTConfig()
    conditioner: Annotated[ConditionerConfig, Kind(CONDITIONERS)] = TextConfig()
    space: Annotated[SpaceConfig, Kind(SPACES)] = PixelConfig()
    path: Annotated[Path, Kind(PATHS)] = Linear()
    objective: Objective = Objective()
    sampling: Sampling = Sampling()
    channels: PositiveInt = 3
    """Channels of a picture."""
    size: PositiveInt = 32
    """Side of the pictures trained on, in pixels (derived from the data)."""

    def moved(self, run: FilePath) -> ModelConfig:
        """This, with what is gone from its path read where the directory `run`, of its own run, leads (`elsewhere`)."""
        return self.model_copy(update={"conditioner": self.conditioner.moved(run), "space": self.space.moved(run)})
