"""One error for all models: how far the expected picture is from the true one, at the same noise.

Training losses cannot be compared: each is measured in its own target, with its own weights, on its own path. But every
answer solves to an expected x0, and what x_t tells of x0 hangs on the ratio of signal to noise alone. So all models are
asked about the same pictures in the same noise, at the same ratios, whatever their times for these are.

Legend: N pictures, B batch, C channels, H height, W width, K levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.types import Data
from fromnoise.diffusion.path import Path, mix
from fromnoise.diffusion.predict import predictor
from fromnoise.diffusion.target import TARGETS
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.validation import BINS

PICTURES = 100
NOISE = tuple(k / 20 for k in range(1, 19))
"""Shares of noise sigma / (alpha + sigma) at which all are asked: that is the time on the straight path. Stable
Diffusion's path ends at .936."""


@torch.no_grad()
def denoising(
    pipeline: Pipeline, data: Data, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Mean squared errors of the expected x0 on `PICTURES` validation pictures with their prompts, for JSON.

    by_time: in each tenth of the model's own time. by_noise: at each share of `noise`, whose logarithmic
    signal-to-noise ratio is `log_snr`. velocity: the mean of by_noise / noise^2, which is the error of the velocity on
    the straight path, all its times counting alike.
    """
    batch = data.validation(PICTURES)
    generator = torch.Generator().manual_seed(0)
    z = pipeline.latents(batch, generator).to(pipeline.device)  # (N, C, H, W)
    eps = torch.randn(z.shape, generator=generator).to(z)  # (N, C, H, W)
    features = pipeline.conditioner.encode(batch.captions, batch.labels)
    cond = pipeline.conditioner({key: value.to(z.device) for key, value in features.items()})
    path = pipeline.config.path
    predict = predictor(pipeline.backbone, cond, path=path, target=TARGETS[pipeline.config.objective.target])

    places = (torch.arange(PICTURES) + 0.5) / PICTURES  # (N,) in a bin
    asked = [*((i + places) / BINS for i in range(BINS)), *(t.expand(PICTURES) for t in times_of(path, NOISE))]
    errors = []
    for done, t in enumerate(asked, 1):
        t = t.to(z)  # (N,)
        errors.append((predict(mix(path(t), z, eps), t).x0 - z).square().mean().item())
        progress(done, len(asked))
    by_noise = errors[BINS:]
    velocity = sum(error / u**2 for error, u in zip(by_noise, NOISE, strict=True)) / len(NOISE)
    return {
        "pictures": PICTURES,
        "by_time": errors[:BINS],
        "noise": list(NOISE),
        "log_snr": log_snr(torch.tensor(NOISE, dtype=torch.float64)).tolist(),
        "by_noise": by_noise,
        "velocity": velocity,
    }


def log_snr(noise: Tensor) -> Tensor:
    """log(alpha^2 / sigma^2) of shares of noise sigma / (alpha + sigma), (K,) -> (K,)."""
    return 2 * (1 / noise - 1).log()


def times_of(path: Path, noise: tuple[float, ...]) -> Tensor:
    """The times (K,) float64 at which `path` has these shares of noise, which grow with the time: by halving."""
    wanted = torch.tensor(noise, dtype=torch.float64)  # (K,)
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(50):
        middle = (low + high) / 2
        coefs = path(middle)
        early = coefs.sigma / (coefs.alpha + coefs.sigma) < wanted  # (K,) bool
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return low
