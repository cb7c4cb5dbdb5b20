"""Stable Diffusion 1's U-Net (Rombach et al. 2022) in training and drawing, and its VAE's encoder: images/s.

Channels lie first in memory, as PyTorch has them, or last, as the kernels of tensor cores read them.

Legend: B batch, S side.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.given import Given, batch_of, by_chance, our_pictures, pipeline_of
from benchmarks.gpu.contest import Call, contest, release, summary, try_out
from benchmarks.gpu.notes import Notes
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.training import learner
from fromnoise.core.device import autocast, fast_bfloat16, pick
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.fast import dtype_of, fast_precision
from fromnoise.training.run import Training as Plan
from fromnoise.training.step import accumulate_gradients, generator_of

FIRST, LAST = "channels first", "channels last"
LATENT = 4  # channels


def measure(settings: Settings, notes: Notes) -> None:
    """U-Net, then VAE."""
    device = pick(settings.device)
    notes.attempt("U-Net", partial(unet, settings, device, notes))
    release(device)
    for side in settings.stable.encoded:
        if notes.time_for(f"VAE at {side} pixels", 1.0):
            notes.attempt(f"VAE at {side} pixels", partial(encoder, settings, side, device, notes))
            release(device)


def in_both_orders(module: Any, device: torch.device) -> dict[str, Any]:
    """The module on the device, and another one of the same weights whose channels lie last."""
    first = module.to(device)
    return {FIRST: first, LAST: copy.deepcopy(first).to(memory_format=torch.channels_last)}


def unet(settings: Settings, device: torch.device, notes: Notes) -> None:
    """Optimizer steps, and guided pictures, eager."""
    s = settings.stable
    given = Given(max(s.batch, s.pictures), settings.text, s.text_width)
    pipeline = pipeline_of(s.unet, LATENT, s.side, given)
    by_chance(pipeline.backbone)
    orders: dict[str, Pipeline] = in_both_orders(pipeline, device)
    told: dict[str, Any] = {"parameters": sum(p.numel() for p in orders[FIRST].parameters())}
    sample = batch_of(orders[FIRST], s.batch).to(device)
    dtype = dtype_of(fast_precision(device, Plan()))
    steps = {
        name: learner(pipeline, partial(accumulate_gradients, pipeline, sample, 1, dtype), 1)
        for name, pipeline in orders.items()
    }
    told["training"] = turns(steps, s.batch, s.rounds, device, notes)
    notes.put("unet", told)
    del steps
    release(device)
    precision: Precision = "bfloat16" if fast_bfloat16(device) else "float32"
    draws = {
        name: partial(our_pictures, pipeline, s.pictures, s.steps, s.guidance, precision)
        for name, pipeline in orders.items()
    }
    if notes.time_for("U-Net drawing", 1.0):
        notes.put("unet", told | {"drawing": turns(draws, s.pictures, s.rounds, device, notes)})


def encoder(settings: Settings, side: int, device: torch.device, notes: Notes) -> None:
    """Pictures of a side to latents, in float32 (TF32 where PyTorch does so by itself) and in bfloat16."""
    s = settings.stable
    torch.manual_seed(0)
    orders = in_both_orders(s.vae.build().requires_grad_(False), device)
    count = max(1, s.pixels // side**2)
    images = torch.rand(count, 3, side, side, generator=generator_of(0, 8)).to(device) * 2 - 1  # (B, 3, S, S)
    calls: dict[str, Call] = {}
    for name, vae in orders.items():
        given = images.contiguous(memory_format=torch.channels_last if name == LAST else torch.contiguous_format)
        for precision, dtype in {"float32": None, "bfloat16": torch.bfloat16}.items():
            calls[f"{name}, {precision}"] = partial(encode, vae, given, dtype)
    notes.put("vae", notes.found.get("vae", {}) | {str(side): turns(calls, count, s.rounds, device, notes)})


@torch.no_grad()
def encode(vae: nn.Module, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    with autocast(images.device, dtype):
        return vae.encode(images).mean  # type: ignore[operator]  # (B, 4, S / 8, S / 8)


def turns(calls: dict[str, Any], images: int, rounds: int, device: torch.device, notes: Notes) -> dict[str, Any]:
    """What each took, and how it compares with channels that lie last."""
    able, firsts = try_out(calls, device, notes)
    if not able:
        return {"first_calls": firsts}
    leader = next((name for name in able if name.startswith(LAST)), next(iter(able)))
    return {"first_calls": firsts} | summary(contest(able, rounds, device, notes), images, leader)
