"""What a checkpoint must know to draw: one frozen tree. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from fromnoise.conditioning.config import ConditionerConfig, TextConfig
from fromnoise.core.config import Config
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import Linear, Path
from fromnoise.models.config import BackboneConfig, MMDiTConfig
from fromnoise.space.config import PixelConfig, SpaceConfig


class Sampling(Config):
    """How pictures are drawn when nothing else is asked for."""

    sampler: Literal["ddpm", "ddim", "euler", "heun", "rk4", "dpmpp_2m", "sde"] = "euler"
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


class ModelConfig(Config):
    """Backbone, conditioner, space, path and objective: what is trained, and how it draws."""

    backbone: BackboneConfig = MMDiTConfig()
    conditioner: ConditionerConfig = TextConfig()
    space: SpaceConfig = PixelConfig()
    path: Path = Linear()
    objective: Objective = Objective()
    sampling: Sampling = Sampling()
    channels: PositiveInt = 3
    """Channels of a picture."""
    size: PositiveInt = 32
    """Side of the pictures trained on, in pixels (derived from the data)."""
