"""What the backbone is to learn: its numbers, channel by channel. Legend: N pictures, C channels, h and w cells."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fromnoise.autoencoder.fidelity import moments
from fromnoise.data.prepared import PreparedData
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.subject import Subject
from fromnoise.space.config import LatentConfig
from fromnoise.training.run import Run
from fromnoise.training.step import generator_of

PICTURES = 256
PART = 16  # that are encoded together
LARGEST_MEAN = 0.3  # of a channel, in standard deviations: 256 pictures, which are alike within, miss by .1
SPREAD = (0.75, 1.35)
"""Standard deviation of a channel. 256 pictures miss it by .1; the one factor .18215 for Stable Diffusion's four
channels leaves .8 to 1.1, latents that are not scaled at all 4 and more."""
LARGEST_KURTOSIS = 30.0
"""3 is normal. The VAEs here have 3 to 6; where a channel is 0 but for a few cells, it is hundreds, and its scale says
nothing of what is seen."""
LARGEST_PIXEL = 2.0  # of pictures in [-1, 1], shifted by up to 1


def latents(subject: Subject) -> Finding:
    """Mean, standard deviation and kurtosis of each channel as a training sees it."""
    name = "latents"
    if subject.data is None:
        return left_out(name, subject.absent)
    assert isinstance(subject.run, Run)
    generator, z, start = generator_of(0, 0), list[Tensor](), 0
    encodes = isinstance(subject.run.model.space, LatentConfig) and not subject.batch.encoded
    while start * PART < (PICTURES // 4 if encodes else PICTURES):
        z.append(subject.model.latents(subject.data.train(start, PART), generator))
        start += 1
        if z[-1].shape[1:] != z[0].shape[1:]:  # a bucket of another size
            z.pop()
    return spread(name, torch.cat(z), isinstance(subject.run.model.space, LatentConfig))


def spread(name: str, z: Tensor, scaled: bool) -> Finding:
    """Whether numbers (N, C, h, w) are what a diffusion expects: of mean 0 and deviation 1 where they are `scaled`."""
    told = moments(z)
    mean, std, kurtosis = (told[f"latent_{key}"] for key in ("mean", "std", "kurtosis"))
    finite = bool(z.isfinite().all())
    fine = finite and (
        max(abs(m) / max(s, 1e-12) for m, s in zip(mean, std, strict=True)) < LARGEST_MEAN
        and min(std) > SPREAD[0]
        and max(std) < SPREAD[1]
        and max(kurtosis) < LARGEST_KURTOSIS
        if scaled
        else float(z.abs().max()) <= LARGEST_PIXEL and max(std) > 0
    )
    return judged(
        name,
        fine,
        f"{len(z)} pictures, {len(mean)} channels: mean {span(mean)}, std {span(std)}, kurtosis {span(kurtosis)}",
        "noise has mean 0 and deviation 1: latents of another scale are trained at other times than the schedule means",
        "measure model.space.shift and scale anew: leave them out, or prepare the data anew",
    )


def span(numbers: list[float]) -> str:
    """The least and the largest."""
    low, high = min(numbers), max(numbers)
    return f"{low:.2f}" if math.isclose(low, high, abs_tol=0.005) else f"{low:.2f} to {high:.2f}"


def stored_scale(subject: Subject) -> Finding | None:
    """The shift and scale of a prepared data set against the latents that lie there."""
    data = subject.data
    if not isinstance(data, PreparedData) or "vae" not in data.layout.encoders:
        return None
    shift, scale = (torch.tensor(numbers)[:, None, None] for numbers in data.scaling)  # (C, 1, 1)
    parts = []
    for step in range(PICTURES // PART):
        stored = data.train(step, PART).images  # (B, 2 C, h, w) or (B, C, h, w)
        mean, *std = stored.split(data.layout.latent, 1)
        drawn = mean + std[0] * torch.randn(mean.shape, generator=generator_of(0, step)) if std else mean
        if not parts or drawn.shape[1:] == parts[0].shape[1:]:
            parts.append((drawn - shift) * scale)
    return spread("stored scale", torch.cat(parts), scaled=True)
