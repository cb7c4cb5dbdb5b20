"""Which layout of diffusers draws as a run does: a pipeline of its own, or one that is written along.

diffusers' own pipelines know no masked text, no class table but DiT's, no pixel space, no interval of guidance, and
times that are whole thousandths. What needs one of these is carried by a pipeline file; backbone, autoencoder, text
encoders and, on the linear path, the scheduler stay diffusers' own wherever there is a class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from fromnoise.conditioning.config import FrozenTextConfig, LabelConfig
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.target import TARGETS, largest_start
from fromnoise.interop.schedules import PREDICTIONS
from fromnoise.models.config import DiTConfig, UNetConfig, VAEConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig

CLASSES = 1000  # of DiTPipeline, which takes this number for no class
FULL_NOISE = 0.9999  # sigma(1) from which a start from unit noise is the same


class Layout(NamedTuple):
    """A pipeline class, and why it is not another."""

    name: str  # stable-diffusion, dit, fromnoise, or vae
    pipeline: str  # class of diffusers, or of the file written along
    nearest: str = ""  # the pipeline of diffusers' that comes nearest, where it is not that
    why: tuple[str, ...] = ()  # what that one cannot do


def layout_of(pipeline: Pipeline) -> Layout:
    """The layout that draws as `pipeline` does."""
    config: Any = pipeline.config
    own = Layout("fromnoise", "FromnoisePipeline")
    if isinstance(config.backbone, DiTConfig) and isinstance(config.conditioner, LabelConfig):
        why = tuple(against_dit(pipeline))
        return own._replace(nearest="DiTPipeline", why=why) if why else Layout("dit", "DiTPipeline")
    if isinstance(config.backbone, UNetConfig):
        why, name = tuple(against_stable_diffusion(pipeline)), "StableDiffusionPipeline"
        return own._replace(nearest=name, why=why) if why else Layout("stable-diffusion", name)
    kind = type(config.backbone).__name__.removesuffix("Config")
    return own._replace(nearest="one of diffusers' own", why=(f"none reads what this {kind} is told",))


def against_dit(pipeline: Pipeline) -> Iterator[str]:
    """What DiTPipeline cannot do of `pipeline`."""
    config = pipeline.config
    if pipeline.conditioner.classes > CLASSES:
        yield f"it knows {CLASSES} classes at most"
    if isinstance(config.path, VP) and float(config.path(torch.ones(1)).sigma) < FULL_NOISE:
        yield "it starts from unit noise, this path from less"
    yield from against_stock(pipeline, ("ddim", "dpmpp_2m"))


def against_stable_diffusion(pipeline: Pipeline) -> Iterator[str]:
    """What StableDiffusionPipeline cannot do of `pipeline`."""
    conditioner: Any = pipeline.config.conditioner
    if not isinstance(conditioner, FrozenTextConfig) or len(conditioner.encoders) > 1:
        yield "it reads one frozen CLIP"
    else:
        (encoder,) = pipeline.conditioner.encoders
        config = encoder.config
        if not encoder.pools or config.layer != "last":
            yield "it reads the last layer of a CLIP"
        if config.padding != "read" or config.length != encoder.tokenizer.model_max_length:
            yield f"it masks no padding (padding=read,length={encoder.tokenizer.model_max_length} would be the same)"
    yield from against_stock(pipeline, ("ddim",))


def against_stock(pipeline: Pipeline, samplers: tuple[str, ...]) -> Iterator[str]:
    """What neither can do."""
    config, sampling = pipeline.config, pipeline.config.sampling
    if not isinstance(config.space, LatentConfig):
        yield "it draws latents, no pixels"
    elif not isinstance(pipeline.space.vae.config, VAEConfig):
        yield "it takes an AutoencoderKL"
    if not isinstance(config.path, VP) or config.path.steps != 1000:
        yield "it follows 1000 betas"
    if config.objective.target not in PREDICTIONS:
        yield f"its schedulers know no target {config.objective.target}"
    if sampling.sampler not in samplers or sampling.eta or sampling.shift != 1:
        yield f"of samplers it has {' and '.join(samplers)} without shift or fresh noise"
    if 1000 % sampling.steps:
        yield f"{sampling.steps} steps do not divide 1000"
    if sampling.interval != (0.0, 1.0) and sampling.guidance > 1:
        yield "it guides at all times"
    if 0 <= sampling.guidance < 1:
        yield "it takes a guidance below 1 for 1"


def flows(pipeline: Pipeline) -> bool:
    """Whether FlowMatchEulerDiscreteScheduler steps as this run's sampler does."""
    config = pipeline.config
    straight = isinstance(config.path, Linear) and largest_start(config.path, TARGETS[config.objective.target]) == 1
    return straight and config.sampling.sampler == "euler"


def left_out(pipeline: Pipeline, layout: Layout) -> list[str]:
    """What the exported folder does not do as fromnoise does, a line each."""
    told = ["weights as trained beside their average, optimizer and metrics stay in the run"]
    if layout.name != "fromnoise":
        told.append("an interval of guidance, and steps that do not divide 1000: their times are rounded")
        told.append("fromnoise's other samplers: the scheduler is one of diffusers'")
    elif flows(pipeline):
        told.append("fromnoise's other samplers: the scheduler is FlowMatchEulerDiscreteScheduler")
    if type(pipeline.config.backbone).__name__ in ("DiTConfig", "CrossDiTConfig"):
        told.append(f"sizes other than {pipeline.config.size} pixels: diffusers' class stretches the places of patches")
    return told
