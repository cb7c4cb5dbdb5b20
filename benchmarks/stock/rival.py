"""What a class of diffusers and the backbone of fromnoise that takes its weights have in common, and how the class is
run: as its users run it, by the loop and the scheduler of diffusers' own pipelines.

All are asked for the flow, whatever they were first trained for: what is compared is the network alone.

Legend: B batch, C channels, S side, L text tokens, D their width.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from pydantic import PositiveInt
from torch import Tensor, nn

from benchmarks.given import pipeline_of
from fromnoise.core.config import Config
from fromnoise.core.device import autocast
from fromnoise.core.types import Cond
from fromnoise.models.config import BackboneConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.step import Sample, generator_of

Told = Mapping[str, Tensor | None]
"""A condition as diffusers' pipeline hands it to the network, by the names of the network's arguments."""


class Way(NamedTuple):
    """How a network is run."""

    autocast: torch.dtype | None  # what autocast runs matrix products in
    weights: torch.dtype  # what the weights are held in
    doubled: bool = True  # guidance by one forward of twice the pictures; else by two
    last: bool = False  # channels last in memory, as diffusers' documentation advises for convolutions

    def __str__(self) -> str:
        precision = "float32" if self.weights == torch.float32 else "bfloat16 weights"
        precision = "bfloat16 autocast" if self.autocast else precision
        return precision + (", channels last" if self.last else "")


class Rival(Config, ABC):
    """A network that fromnoise and diffusers both have, and what it is asked to draw."""

    stock: ClassVar[str]
    """diffusers' class."""
    targets: ClassVar[Mapping[str, float]] = {"training": 1.3, "sampling": 1.3}
    """How many times as fast as that class fromnoise should be."""
    layouts: ClassVar[Sequence[bool]] = (False,)
    """Whether channels last is a usual way to run the class: which are tried."""

    backbone: BackboneConfig
    """fromnoise's network."""
    side: PositiveInt = 28
    """Side of a picture, in pixels."""
    channels: PositiveInt = 1
    """Channels of a picture."""
    text: PositiveInt = 12
    """Text tokens, where it reads any."""
    text_width: PositiveInt = 96
    """Width of a text token."""

    @abstractmethod
    def fresh(self) -> nn.Module:
        """diffusers' class, of this size."""

    @abstractmethod
    def conditioner(self, rows: int) -> nn.Module:
        """What conditions fromnoise's network, for batches of up to `rows`."""

    @abstractmethod
    def take(self, pipeline: Pipeline, stock: nn.Module) -> None:
        """Give fromnoise's network the weights of the stock class."""

    @abstractmethod
    def told(self, stock: nn.Module, cond: Cond) -> Told:
        """The same condition for the stock class."""

    @abstractmethod
    def ask(self, stock: Callable[..., Any], x: Tensor, t: Tensor, told: Told) -> Tensor:
        """The stock class on x (B, C, S, S), t (B,) from 0 to 1 -> (B, C, S, S)."""

    def compiled_parts(self, stock: Any) -> list[nn.Module]:
        """What of the stock class its users compile: each transformer block, as `compile_repeated_blocks` does."""
        return list(stock.transformer_blocks)

    def beside(self, pipeline: Pipeline) -> nn.Module:
        """The stock class with weights by chance, which the network of `pipeline` then has, too; on the CPU."""
        stock = self.fresh().eval()  # in training mode DiT drops classes by chance
        generator = generator_of(0, 1)
        for name, p in stock.named_parameters():  # gates that are zero, as at the start, would hide the blocks
            norm = "norm" in name and name.endswith("weight") and p.ndim == 1
            nn.init.normal_(p, float(norm), p[0].numel() ** -0.5 if p.ndim > 1 else 0.1, generator=generator)
        self.take(pipeline, stock)
        return stock

    def build(self, rows: int, device: torch.device) -> tuple[Pipeline, nn.Module]:
        """fromnoise's pipeline and the stock class, with the same weights."""
        pipeline = pipeline_of(self.backbone, self.channels, self.side, self.conditioner(rows))
        stock = self.beside(pipeline)
        return pipeline.to(device), nn.Module.to(stock, device)

    def held(self, stock: nn.Module, way: Way, compile: bool) -> nn.Module:
        """A copy of the stock class, as `way` has its weights."""
        model = copy.deepcopy(stock)
        nn.Module.to(model, way.weights)  # diffusers' own `to` warns of what does not concern this class
        if way.last:
            nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as it is not bound
        for part in self.compiled_parts(model) if compile else []:
            part.compile(dynamic=False)
        return model

    def prompt(self, stock: nn.Module, cond: Cond, way: Way) -> Told:
        """`told`, in the type of the weights."""
        told = self.told(stock, cond)
        return {
            key: value.to(way.weights) if value is not None and value.is_floating_point() else value
            for key, value in told.items()
        }

    def answer(self, model: nn.Module, x: Tensor, t: Tensor, told: Told, way: Way) -> Tensor:
        """The stock class on x (B, C, S, S), t (B,), run as `way` says -> (B, C, S, S) float32."""
        layout = torch.channels_last if way.last else torch.contiguous_format
        with autocast(x.device, way.autocast):
            return self.ask(model, x.to(way.weights, memory_format=layout), t, told).float()

    @torch.no_grad()
    def pictures(
        self, model: nn.Module, noise: Tensor, cond: Cond, null: Cond, steps: int, guidance: float, way: Way
    ) -> Tensor:
        """The sampling loop of diffusers' pipelines, less what rescales: noise (B, C, S, S) -> pictures."""
        scheduler: Any = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), device=noise.device)
        real = int(null.mask.sum(1).max())
        short = Cond(null.tokens[:, :real], null.mask[:, :real], null.vector)  # alone it needs no padding
        both, one, other = (self.prompt(model, c, way) for c in (cond.cat(null), cond, short))
        x = noise
        for timestep in scheduler.timesteps:
            t = (timestep / 1000).expand(len(x))  # (B,)
            if way.doubled:
                y, y_null = self.answer(model, torch.cat([x, x]), torch.cat([t, t]), both, way).chunk(2)
            else:
                y, y_null = self.answer(model, x, t, one, way), self.answer(model, x, t, other, way)
            x = scheduler.step(y_null + guidance * (y - y_null), timestep, x, return_dict=False)[0]
        return x


def flow_loss(answer: Callable[[Tensor, Tensor], Tensor], sample: Sample) -> Tensor:
    """The flow matching loss of diffusers' training scripts."""
    t = sample.t[:, None, None, None]  # (B, 1, 1, 1)
    noisy = (1 - t) * sample.z + t * sample.eps  # (B, C, S, S)
    return F.mse_loss(answer(noisy, sample.t), sample.eps - sample.z)
