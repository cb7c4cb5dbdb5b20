"""From a network to x0 and eps, with or without guidance. Legend: B batch, C channels, H height, W width."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.core.transfer import sent
from fromnoise.core.types import Cond
from fromnoise.diffusion.path import Path, Prediction, expand
from fromnoise.diffusion.target import Target, solve

Model = Callable[[Tensor, Tensor, Cond], Tensor]
"""(x_t (B, C, H, W), t (B,), cond) -> y (B, C, H, W)."""

Predict = Callable[[Tensor, Tensor], Prediction]
"""(x_t (B, C, H, W), t (B,), there or on the CPU) -> x0 and eps (B, C, H, W). All that a sampler knows of a network."""


def predictor(model: Model, cond: Cond, *, path: Path, target: Target) -> Predict:
    """The network under one condition; one forward of B samples a call."""

    def predict(x_t: Tensor, t: Tensor) -> Prediction:
        t = sent(t, x_t.device)  # (B,)
        return solve(path(t), target, x_t, model(x_t, t, cond))

    return predict


def guided(
    model: Model, cond: Cond, null: Cond, scale: float, interval: tuple[float, float], *, path: Path, target: Target
) -> Predict:
    """Classifier-free guidance, null + scale (cond - null) (Ho and Salimans 2022, Eq. 6, with scale = 1 + w).

    Scale 1 is conditional and scale 0 unconditional at every time, with one forward of B samples. Any other scale
    takes one forward of 2 B where t is in `interval` (Kynkäänniemi et al. 2024); outside it is conditional, with one
    of B.
    """
    if scale < 0:
        raise ValueError(f"guidance is {scale:g}; allowed >= 0")
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance interval is {low:g} to {high:g}; allowed 0 <= low <= high <= 1")
    conditional = predictor(model, cond, path=path, target=target)
    if scale == 1:
        return conditional
    if scale == 0:
        return predictor(model, null, path=path, target=target)
    both, everywhere = cond.cat(null), (low, high) == (0, 1)

    def predict(x_t: Tensor, t: Tensor) -> Prediction:
        inside = (t >= low) & (t <= high)  # (B,)
        if not everywhere and not bool(inside.any()):
            return conditional(x_t, t)
        t, inside = (sent(told, x_t.device) for told in (t, inside))
        y, y_null = model(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)  # (B, C, H, W) each
        scales = 1 + (scale - 1) * inside.to(x_t.dtype)  # (B,)
        return solve(path(t), target, x_t, y_null + expand(scales, x_t) * (y - y_null))

    return predict
