"""diffusers' `QwenImageTransformer2DModel`, run as its users run it: the loss of diffusers' training scripts, the loop
and the scheduler of its pipeline.

Legend: B batch, C channels, S side, L text tokens, D width, p patch side, h and w patches down and across.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import Tensor, nn

from benchmarks.given import Sizes, noise_and_conditions, our_pictures, sample_of
from fromnoise.core.device import autocast
from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.nn.patch import pack, unpack
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.step import Sample, generator_of


def stock_of(pipeline: Pipeline) -> QwenImageTransformer2DModel:
    """The stock class of the size of `pipeline`'s MMDiT, with weights by chance, which both then have; on the CPU."""
    c, channels = pipeline.config.backbone, pipeline.config.channels
    assert isinstance(c, MMDiTConfig), "no other backbone has this stock class"
    stock = QwenImageTransformer2DModel(
        patch_size=c.patch,
        in_channels=channels * c.patch**2,
        out_channels=channels,
        num_layers=c.depth,
        attention_head_dim=c.head_width,
        num_attention_heads=c.width // c.head_width,
        joint_attention_dim=pipeline.conditioner.width,
        axes_dims_rope=(0, c.head_width // 2, c.head_width // 2),
    )
    generator = generator_of(0, 1)
    for parameter in stock.parameters():  # gates that are zero, as at the start, would hide the blocks from a check
        nn.init.normal_(parameter, std=c.width**-0.5, generator=generator)
    pipeline.backbone.import_state(stock.state_dict())
    return stock


class Way(NamedTuple):
    """How the stock class is run."""

    autocast: torch.dtype | None  # what autocast runs matrix products in
    weights: torch.dtype  # what the weights are held in
    doubled: bool  # guidance by one forward of twice the pictures; else by two, as diffusers' pipeline does

    def __str__(self) -> str:
        precision = "float32" if self.weights == torch.float32 else "bfloat16 weights"
        return "bfloat16 autocast" if self.autocast else precision


class Prompt(NamedTuple):
    """A condition as diffusers' Qwen-Image pipeline hands it to the network."""

    tokens: Tensor  # (B, L, D) in the type of the weights
    mask: Tensor | None  # (B, L); None where every token is real

    @classmethod
    def of(cls, cond: Cond, way: Way) -> Prompt:
        return cls(cond.tokens.to(way.weights), None if bool(cond.mask.all()) else cond.mask)


def answer(model: QwenImageTransformer2DModel, x: Tensor, t: Tensor, prompt: Prompt, way: Way) -> Tensor:
    """The stock class on x (B, C, S, S), t (B,) -> (B, C, S, S)."""
    p = model.config["patch_size"]
    h, w = x.shape[-2] // p, x.shape[-1] // p
    with autocast(x.device, way.autocast):
        tokens = model(
            hidden_states=pack(x, p).to(way.weights),
            encoder_hidden_states=prompt.tokens,
            encoder_hidden_states_mask=prompt.mask,
            timestep=t,
            img_shapes=[[(1, h, w)]] * len(x),
            return_dict=False,
        )[0]  # (B, h w, C p p)
    return unpack(tokens.float(), h, w, p)  # (B, C, S, S)


def stock_loss(model: QwenImageTransformer2DModel, sample: Sample, prompt: Prompt, way: Way) -> Tensor:
    """The flow matching loss of diffusers' training scripts."""
    t = sample.t[:, None, None, None]  # (B, 1, 1, 1)
    noisy = (1 - t) * sample.z + t * sample.eps  # (B, C, S, S)
    flow = answer(model, noisy, sample.t, prompt, way)  # (B, C, S, S)
    return F.mse_loss(flow, sample.eps - sample.z)


@torch.no_grad()
def stock_pictures(
    model: QwenImageTransformer2DModel, noise: Tensor, cond: Cond, null: Cond, steps: int, guidance: float, way: Way
) -> Tensor:
    """The sampling loop of diffusers' Qwen-Image pipeline, less its rescaling: noise (B, C, S, S) -> pictures."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), device=noise.device)
    short = Cond(null.tokens[:, :1], null.mask[:, :1], null.vector)  # alone in its forward it needs no padding
    both, one, other = (Prompt.of(c, way) for c in (cond.cat(null), cond, short))
    x = noise
    for timestep in scheduler.timesteps:
        t = (timestep / 1000).expand(len(x))  # (B,)
        if way.doubled:
            y, y_null = answer(model, torch.cat([x, x]), torch.cat([t, t]), both, way).chunk(2)
        else:
            y, y_null = answer(model, x, t, one, way), answer(model, x, t, other, way)
        x = scheduler.step(y_null + guidance * (y - y_null), timestep, x, return_dict=False)[0]
    return x


def gaps(pipeline: Pipeline, stock: QwenImageTransformer2DModel, sizes: Sizes) -> dict[str, float]:
    """How far loss and pictures of both are apart in float32, as shares."""
    way = Way(None, torch.float32, True)
    sample, cond = sample_of(pipeline, sizes)
    with torch.no_grad():
        loss = pipeline.loss(*sample).mean()
        gap = (loss - stock_loss(stock, sample, Prompt.of(cond, way), way)).abs() / loss
    ours = our_pictures(pipeline, sizes, 3, "float32")
    theirs = stock_pictures(stock, *noise_and_conditions(pipeline, sizes), 3, sizes.guidance, way)
    return {"loss": gap.item(), "pictures": ((ours - theirs).abs().max() / theirs.std()).item()}


def held(model: QwenImageTransformer2DModel, way: Way, compile: bool) -> QwenImageTransformer2DModel:
    """A copy of `model`, as `way` has its weights."""
    model = copy.deepcopy(model)
    nn.Module.to(model, way.weights)  # diffusers' own `to` warns of what does not concern this class
    if compile:
        model.compile_repeated_blocks(dynamic=False)
    return model
