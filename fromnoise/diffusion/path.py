"""Paths from data to noise: x_t = alpha(t) x0 + sigma(t) eps. Legend: B batch, K knots.

Time t is in [0, 1]: 0 is data, 1 is noise, float32, shape (B,). `alpha` and `sigma` are amplitudes, never alpha-bar;
`d_alpha` and `d_sigma` are their slopes in t. Kept free of torch, so that `--help` stays quick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import accumulate, pairwise
from math import exp, log, log1p, pi
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from fromnoise.core.config import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TERMINAL_SIGNAL = 0.07
"""Largest alpha(1) of a path. Sampling starts from pure noise, so what is left of the signal biases every picture:
Stable Diffusion's 6.8 % is why it draws nothing very dark or very bright (Lin et al. 2023). DDPM leaves 0.6 %."""

SIGMA_FLOOR = 1e-5
"""VP's sigma grows as sqrt(t), so its slope is infinite at t = 0; the slope divides by no less than this."""


class Coefs(NamedTuple):
    """A path at t, and its slope: four tensors of (B,)."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class Prediction(NamedTuple):
    """What a network's answer says about x_t: both (B, ...) like x_t."""

    x0: Tensor
    eps: Tensor


class Path(Config, ABC):
    """From data to noise."""

    type: str

    @abstractmethod
    def __call__(self, t: Tensor) -> Coefs:
        """t (B,) -> coefficients (B,)."""


class Linear(Path):
    """Straight line, alpha = 1 - t, sigma = t: rectified flow (Liu et al. 2022; Lipman et al. 2023)."""

    type: Literal["linear"] = "linear"

    def __call__(self, t: Tensor) -> Coefs:
        """t (B,) -> coefficients (B,)."""
        one = t.new_ones(t.shape)
        return Coefs(1 - t, t, -one, one)


class Cosine(Path):
    """Quarter circle, alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol and Dhariwal 2021, without their offset)."""

    type: Literal["cosine"] = "cosine"

    def __call__(self, t: Tensor) -> Coefs:
        """t (B,) -> coefficients (B,)."""
        # sin of the complement: cos(pi / 2) is -4e-8 in float32, and its logarithm is not a number.
        alpha, sigma = ((1 - t) * (pi / 2)).sin(), (t * (pi / 2)).sin()
        return Coefs(alpha, sigma, -pi / 2 * sigma, pi / 2 * alpha)


class VP(Path):
    """DDPM's variance-preserving path (Ho et al. 2020), made continuous: alpha = sqrt(alpha-bar).

    `steps` betas, equally spaced, give alpha-bar after k steps at the knot t = k / steps. Between the knots log
    alpha-bar is a monotone cubic, so a sampler with any number of steps runs from the same noise, and the slope is
    continuous (with straight lines it jumps at the knots, and a second-order solver stops improving). DDPM's timestep
    i, counted from 0, is t = (i + 1) / steps.

    The betas of Stable Diffusion 1 and 2 are `VP(beta_start=0.00085, beta_end=0.012, power=2)`.

    Raises ValueError where more than 7 % of the signal is left at t = 1.
    """

    type: Literal["vp"] = "vp"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Variance added by the first step."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Variance added by the last step."""
    steps: PositiveInt = 1000
    """Number of betas (not of sampling steps: those are free)."""
    power: PositiveInt = 1
    """Their roots of this order are equally spaced: 1 is DDPM's linear, 2 Stable Diffusion's scaled_linear."""

    @classmethod
    def rescaled(cls, steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> VP:
        """The path of `steps` betas that ends where 1000 betas from `beta_start` to `beta_end` end, or further."""
        fewest = int(1000 * beta_end) + 1
        if steps < fewest:
            raise ValueError(f"VP.rescaled: steps is {steps}; allowed >= {fewest}, so that beta_end stays below 1")
        scale = 1000 / steps
        return cls(beta_start=beta_start * scale, beta_end=beta_end * scale, steps=steps)

    @model_validator(mode="after")
    def _ends_in_noise(self) -> VP:
        log_bar = log_alpha_bar(self.beta_start, self.beta_end, self.steps, self.power)[-1]
        if exp(log_bar / 2) >= TERMINAL_SIGNAL:
            factor = 2 * log(TERMINAL_SIGNAL) / log_bar + 0.05
            raise ValueError(
                f"VP: alpha-bar at t=1 is {exp(log_bar):.3g}, {exp(log_bar / 2):.0%} of the signal is left; "
                f"allowed < {TERMINAL_SIGNAL:.0%}: rescale the betas, times {factor:.1f} "
                f"or as VP.rescaled({self.steps}) does"
            )
        return self

    def __call__(self, t: Tensor) -> Coefs:
        """t (B,) -> coefficients (B,)."""
        table = cubics(self.beta_start, self.beta_end, self.steps, self.power, t.dtype, t.device)  # (K, 4)
        place = t * self.steps  # (B,)
        knot = place.long().clamp(0, self.steps - 1)  # (B,)
        f = place - knot  # (B,) in [0, 1]
        c0, c1, c2, c3 = table[knot].unbind(-1)  # (B,) each
        log_bar = c0 + f * (c1 + f * (c2 + f * c3))  # (B,)
        slope = self.steps * (c1 + f * (2 * c2 + 3 * f * c3))  # (B,)
        alpha = (log_bar / 2).exp()
        sigma = log_bar.expm1().abs().sqrt()
        return Coefs(alpha, sigma, slope * alpha / 2, -slope * alpha**2 / (2 * sigma.clamp(min=SIGMA_FLOOR)))


PATHS: list[type[Path]] = [Linear, Cosine, VP]


@lru_cache(maxsize=32)
def log_alpha_bar(beta_start: float, beta_end: float, steps: int, power: int) -> tuple[float, ...]:
    """Logarithm of alpha-bar at the knots t = k / steps: steps + 1 numbers, the first 0."""
    first, last = beta_start ** (1 / power), beta_end ** (1 / power)
    rise = (last - first) / max(steps - 1, 1)
    return tuple(accumulate((log1p(-((first + k * rise) ** power)) for k in range(steps)), initial=0.0))


@lru_cache(maxsize=32)
def cubics(
    beta_start: float, beta_end: float, steps: int, power: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(K, 4) coefficients of log alpha-bar after each knot, in powers of the share of the way to the next.

    Slopes at the knots are harmonic means, which keep the cubics monotone (Fritsch and Butland 1984).
    """
    import torch

    knots = log_alpha_bar(beta_start, beta_end, steps, power)
    s = [b - a for a, b in pairwise(knots)]
    m = [s[0], *(2 * a * b / (a + b) for a, b in pairwise(s)), s[-1]]
    rows = [(knots[k], m[k], 3 * s[k] - 2 * m[k] - m[k + 1], m[k] + m[k + 1] - 2 * s[k]) for k in range(steps)]
    return torch.tensor(rows, dtype=dtype, device=device)


def expand(v: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...) with as many axes as x: the one place where a time meets a sample."""
    assert v.shape == x.shape[:1], f"one number per sample: got {tuple(v.shape)} for {tuple(x.shape)}"
    return v.reshape(-1, *[1] * (x.ndim - 1))


def mix(coefs: Coefs, x0: Tensor, eps: Tensor) -> Tensor:
    """x_t = alpha x0 + sigma eps; x0 and eps (B, ...) -> (B, ...)."""
    return expand(coefs.alpha, x0) * x0 + expand(coefs.sigma, x0) * eps
