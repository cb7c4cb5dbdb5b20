"""One optimizer step: its pictures and all its chances are a pure function of (seed, step).

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from fromnoise.core.device import autocast, queues
from fromnoise.core.transfer import sent
from fromnoise.core.types import Batch
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import trainee
from fromnoise.training.parallel import SINGLE, Learner, Parallel
from fromnoise.training.trainee import Model

CLIP_EPS = 1e-6  # that PyTorch's `clip_grad_norm_` adds to the norm before it divides by it


class Sample(NamedTuple):
    """What `Pipeline.loss` takes: a batch, and everything about it that is drawn by chance."""

    z: Tensor  # (B, C, H, W) latents
    features: dict[str, Tensor]  # of the conditioner; first axis B
    t: Tensor  # (B,)
    eps: Tensor  # (B, C, H, W)
    keep: Tensor  # (B,) bool, False where the prompt is dropped

    def to(self, device: torch.device) -> Sample:
        """The same on `device`; from pinned memory the copy does not wait."""
        features = {key: sent(value, device) for key, value in self.features.items()}
        z, t, eps, keep = (sent(x, device) for x in (self.z, self.t, self.eps, self.keep))
        return Sample(z, features, t, eps, keep)

    def pinned(self) -> Sample:
        """The same in page-locked memory."""
        features = {key: value.pin_memory() for key, value in self.features.items()}
        return Sample(self.z.pin_memory(), features, self.t.pin_memory(), self.eps.pin_memory(), self.keep.pin_memory())

    @property
    def size(self) -> int:
        """How many samples: B."""
        return len(self.t)

    def about(self, row: int) -> str:
        """What to tell of a sample at which the loss broke."""
        return f" (t={float(self.t[row]):.4g})"

    def suspects(self) -> dict[str, Tensor]:
        """What was given of it, by name."""
        return {"picture": self.z, "noise": self.eps}

    def rows(self, first: int, last: int) -> Sample:
        """Samples `first` to `last`, the last left out."""
        features = {key: value[first:last] for key, value in self.features.items()}
        z, t, eps, keep = (x[first:last] for x in (self.z, self.t, self.eps, self.keep))
        return Sample(z, features, t, eps, keep)


def generator_of(seed: int, step: int) -> torch.Generator:
    """The source of all chance in a step, on the CPU, so that every device sees the same."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def widened(pipeline: Pipeline, batch: Batch, first: int, size: int) -> Batch:
    """A batch of `size`, of which only the rows from `first` on are here, with the others blank.

    The chances of a step are drawn for all rows, to be the same however many processes share them. What is here is
    encoded beforehand, which costs far more: blank rows need not be.
    """
    after = size - first - len(batch.captions)
    if first + after == 0:
        return batch
    images = batch.images if batch.encoded else pipeline.space.encode(batch.images)  # (b, S, h, w)
    features = dict(batch.features) or pipeline.conditioner.encode(batch.captions, batch.labels)
    return Batch(
        among_blank(images, first, size),  # (B, S, h, w)
        [""] * first + batch.captions + [""] * after,
        among_blank(batch.labels, first, size),  # (B,)
        {key: among_blank(value, first, size) for key, value in features.items()},
        encoded=True,
    )


def among_blank(rows: Tensor, first: int, size: int) -> Tensor:
    """`rows` as those from `first` on of `size`. The others are zero where a row is a number, and else whatever lies in
    memory that nobody has asked for: to write it would take longer than a GPU's step."""
    every = (rows.new_zeros if rows.ndim == 1 else rows.new_empty)((size, *rows.shape[1:]))
    every[first : first + len(rows)] = rows
    return every


def draw(pipeline: Pipeline, batch: Batch, generator: torch.Generator, dropping: bool = True) -> Sample:
    """Latents, features, times, noise and dropped prompts of a batch, on the CPU; where not `dropping`, no prompt and
    nothing that an encoder reads is dropped."""
    objective, size = pipeline.config.objective, len(batch.captions)
    z = pipeline.latents(batch, generator)  # (B, C, H, W)
    t = objective.times.sample(size, generator)  # (B,)
    eps = torch.randn(z.shape, generator=generator)  # (B, C, H, W)
    if not dropping:
        return Sample(z, pipeline.conditioner.read(batch), t, eps, torch.ones(size, dtype=torch.bool))
    keep = torch.rand(size, generator=generator) >= objective.dropout  # (B,)
    return Sample(z, pipeline.conditioner.read(batch, generator), t, eps, keep)


def accumulate_gradients(
    model: Model | Learner,
    sample: trainee.Sample,
    parts: int,
    dtype: torch.dtype | None,
    synced: Callable[[bool], AbstractContextManager[object]] = lambda last: nullcontext(),
) -> Tensor:
    """Add the gradients of the mean loss, in `parts` equal parts to save memory; the losses of the samples, (B,).

    dtype: what autocast runs matrix products in; None leaves them as they are. synced: the context of a part, told
    whether it is the last; of a `Learner`.
    """
    size = sample.size
    rows = size // parts
    losses = []
    for first in range(0, size, rows):
        with synced(first + rows == size):
            with autocast(model.device, dtype):
                loss = model.loss(*sample.rows(first, first + rows))  # (B / parts,)
            (loss.sum() / size).backward()
        losses.append(loss.detach())
    return torch.cat(losses)


@torch.no_grad()
def clip_gradients(model: Model, most: float, parallel: Parallel = SINGLE) -> Tensor:
    """Scale all gradients so that their norm is at most `most`; the norm before, ().

    Where it is small enough, and known without waiting, they are left alone: PyTorch's `clip_grad_norm_` would read and
    write all of them, to multiply by 1.
    """
    norm = gradient_norm(model, parallel)  # ()
    if queues(norm.device) or float(norm) + CLIP_EPS > most:
        torch._foreach_mul_(_gradients(model, parallel), (most / (norm + CLIP_EPS)).clamp(max=1.0))
    return norm


@torch.no_grad()
def gradient_norm(model: Model, parallel: Parallel = SINGLE) -> Tensor:
    """The norm of all gradients as one vector, ()."""
    return parallel.norm(get_total_norm(_gradients(model, parallel)))


def _gradients(model: Model, parallel: Parallel) -> list[Tensor]:
    """What of them is here."""
    return [parallel.held(p.grad) for p in model.parameters() if p.grad is not None]
