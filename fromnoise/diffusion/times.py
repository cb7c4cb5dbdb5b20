"""Which times are trained on, and which are sampled at. Kept free of torch, so that `--help` stays quick.

Legend: N steps. Time t is in [0, 1]: 0 is data, 1 is noise, float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import PositiveFloat

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from torch import Generator, Tensor

EDGE = 1e-5
"""Trained times keep this far from 0 and 1, where the determinant of some target is 0."""

T = TypeVar("T", "Tensor", float)


def shifted(t: T, s: float) -> T:
    """t' = s t / (1 + (s - 1) t): towards noise for s > 1, towards data for s < 1 (SD3: Esser et al. 2024, Eq. 23)."""
    return t / (t + (1 - t) / s)  # the same, but exactly 1 at t = 1: above 1, alpha would be negative


def quantiles(n: int, generator: Generator) -> Tensor:
    """n numbers from 0 to 1, (n,) float32: one by chance in each nth part, so that no batch sees times of one kind only
    (VDM: Kingma et al. 2021, appendix I.1)."""
    import torch

    offsets = torch.rand(n, generator=generator, device=generator.device)  # (n,)
    return (torch.arange(n, device=generator.device) + offsets) / n  # (n,)


class Times(Config, ABC):
    """Which times are trained on."""

    type: str
    shift: PositiveFloat = 1.0
    """Moves the times towards noise (> 1) or data (< 1): t' = s t / (1 + (s - 1) t)."""

    @abstractmethod
    def sample(self, n: int, generator: Generator) -> Tensor:
        """n times, (n,) float32, rising, on the generator's device."""


class Uniform(Times):
    """Every time equally often, then shifted."""

    type: Literal["uniform"] = "uniform"

    def sample(self, n: int, generator: Generator) -> Tensor:
        """n times, (n,) float32, rising, on the generator's device."""
        return shifted(quantiles(n, generator), self.shift).clamp(EDGE, 1 - EDGE)


class LogitNormal(Times):
    """t = sigmoid(mean + std z): most often in the middle (SD3: Esser et al. 2024, Eq. 19), then shifted."""

    type: Literal["logit_normal"] = "logit_normal"
    mean: float = 0.0
    """Mean of logit(t); above 0 leans to noise."""
    std: PositiveFloat = 1.0
    """Standard deviation of logit(t)."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        """n times, (n,) float32, rising, on the generator's device."""
        import torch

        z = torch.special.ndtri(quantiles(n, generator))  # (n,) normal
        return shifted((self.mean + self.std * z).sigmoid(), self.shift).clamp(EDGE, 1 - EDGE)


TIMES: list[type[Times]] = [Uniform, LogitNormal]


def schedule(steps: int, shift: float = 1.0, t_max: float = 1.0) -> Tensor:
    """The times of a sampler, (N + 1,) float32: from `t_max` strictly down to 0, equally spaced before the shift."""
    import torch

    if steps < 1:
        raise ValueError(f"steps is {steps}; allowed >= 1")
    if shift <= 0:
        raise ValueError(f"shift is {shift:g}; allowed > 0")
    if not 0 < t_max <= 1:
        raise ValueError(f"t_max is {t_max:g}; allowed 0 < t_max <= 1")
    return t_max * shifted(torch.linspace(1, 0, steps + 1), shift)
