"""Does it listen? What a wrong caption costs, and how far the caption moves the answer, by time.

A model that ignores its captions draws fine pictures of whatever it likes: its losses look alike under any caption.

Legend: N pictures, B batch, C channels, H height, W width, K times.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.types import Data
from fromnoise.diffusion.path import mix
from fromnoise.diffusion.target import TARGETS, det, flow
from fromnoise.evaluation.features.real import NotMeasured
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.validation import BINS

PICTURES = 100
CHUNK = 50  # samples of one forward


@torch.no_grad()
def listening(
    pipeline: Pipeline, data: Data, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """On `PICTURES` validation pictures at the middle of each tenth of the time, plain numbers for JSON.

    loss, loss_shuffled, loss_null: mean training loss by time with each picture's caption, with another's, with none.
    Another's is a caption of another class where there are classes, else another caption of another picture.
    gap: mean over the times of (shuffled - own) / own, with its 95 % interval over the `distinct` pictures, which are
    fewer where those held out come several times. moved: by time, ||v(c) - v(null)|| / ||v(c)||, v the velocity of the
    path.

    Raises:
        NotMeasured: where the model has no captions, or a picture cannot be given another's.
    """
    if pipeline.config.conditioner.type == "none":
        raise NotMeasured("the model reads no prompts: there is nothing to listen to")
    batch = data.validation(PICTURES)
    pictures = _numbered([image.numpy().tobytes() for image in batch.images])  # (N,)
    other = _others(_alike(batch.labels) if data.classes > 1 else _alike(pictures) | _alike(_numbered(batch.captions)))
    generator = torch.Generator().manual_seed(0)
    z = pipeline.latents(batch, generator)  # (N, C, H, W)
    eps = torch.randn(z.shape, generator=generator)  # (N, C, H, W)
    features = pipeline.conditioner.encode(batch.captions, batch.labels)
    losses, moved = torch.zeros(3, BINS, PICTURES), torch.zeros(2, BINS, PICTURES)
    for k in range(BINS):
        for first in range(0, PICTURES, CHUNK):
            rows = torch.arange(first, min(first + CHUNK, PICTURES))
            t = torch.full((len(rows),), (k + 0.5) / BINS)  # (B,)
            found = _at(pipeline, z[rows], eps[rows], t, features, rows, other[rows])
            losses[:, k, rows], moved[:, k, rows] = (one.cpu() for one in found)
        progress(k + 1, BINS)
    own, shuffled, null = losses.mean(2)  # (K,) each
    gap, half = _gap(losses[0], losses[1], pictures)
    return {
        "pictures": PICTURES,
        "distinct": len(pictures.unique()),
        "times": [(k + 0.5) / BINS for k in range(BINS)],
        "loss": own.tolist(),
        "loss_shuffled": shuffled.tolist(),
        "loss_null": null.tolist(),
        "gap": gap,
        "gap_interval": [gap - half, gap + half],
        "moved": (moved[0].sum(1) / moved[1].sum(1)).sqrt().tolist(),
    }


def _gap(own: Tensor, shuffled: Tensor, pictures: Tensor) -> tuple[float, float]:
    """The mean over the times of (shuffled - own) / own, of losses (K, N), and half of its 95 % interval over the
    distinct `pictures` (N,).

    Where captions matter much, the loss under the own one is as uncertain as that under another's: to first order a
    picture moves the ratio r of their means by (shuffled - r own) / mean own (Cochran 1977, section 2.11).
    """
    from scipy.stats import t as student

    below = own.mean(1, keepdim=True)  # (K, 1)
    ratio = shuffled.mean(1, keepdim=True) / below  # (K, 1)
    moves = ((shuffled - ratio * own) / below).mean(0)  # (N,)
    each = torch.stack([moves[pictures == one].mean() for one in pictures.unique()])  # (D,) of the distinct pictures
    wide = 1.96 if len(each) == len(pictures) else float(student.ppf(0.975, len(each) - 1))  # of so many, the normal's
    return (ratio - 1).mean().item(), wide * each.std().item() / len(each) ** 0.5


def _at(
    pipeline: Pipeline, z: Tensor, eps: Tensor, t: Tensor, features: dict[str, Tensor], rows: Tensor, other: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses (3, B) with the own caption, another's and none; squared norms (2, B) of v(c) - v(null) and of v(c)."""
    config, device = pipeline.config, pipeline.device
    objective, path = config.objective, config.path
    z, eps, t = z.to(device), eps.to(device), t.to(device)
    said = [
        pipeline.conditioner({key: value[at].to(device) for key, value in features.items()}) for at in (rows, other)
    ]
    coefs = path(t)
    x_t = mix(coefs, z, eps)  # (B, C, H, W)
    answers, losses = [], []
    for cond in (*said, pipeline.conditioner.null(len(z))):
        y = pipeline.backbone(x_t, t, cond)  # (B, C, H, W)
        losses.append(objective.loss(lambda x, t, cond, y=y: y, z, cond, t, eps, path))
        answers.append(y)
    own, _, null = answers
    # At fixed x_t a difference of y is one of the velocity times det_flow / det_target, as in `Objective.weight`.
    scale = (det(coefs, flow) / det(coefs, TARGETS[objective.target])).square()  # (B,)
    apart = scale * (own - null).square().flatten(1).sum(1)  # (B,)
    d_alpha, d_sigma = (c[:, None, None, None] for c in (coefs.d_alpha, coefs.d_sigma))
    velocity = (d_alpha * z + d_sigma * eps).square().flatten(1).sum(1)  # (B,)
    return torch.stack(losses), torch.stack((apart, velocity))


def _numbered(values: Sequence[Hashable]) -> Tensor:
    """Numbers (N,) that are equal where the values are."""
    known: dict[Hashable, int] = {}
    return torch.tensor([known.setdefault(value, len(known)) for value in values])


def _alike(numbers: Tensor) -> Tensor:
    """Which of `numbers` (N,) are equal, (N, N) bool."""
    return numbers[:, None] == numbers


def _others(alike: Tensor) -> Tensor:
    """For each picture the place of another that is not `alike`, (N, N) bool; (N,).

    Raises:
        NotMeasured: where a picture is like all others.
    """
    count = len(alike)
    places = torch.arange(count)
    for shift in range(1, count):
        other = (places + shift) % count
        if not alike[places, other].any():
            return other
    if alike.all(1).any():
        raise NotMeasured("of a validation picture no other says anything else: it cannot be given another's caption")
    ahead = (places[:, None] + places) % count  # (N, N) from each one on, round
    return ahead.gather(1, alike.gather(1, ahead).int().argmin(1, keepdim=True))[:, 0]  # the first that is not alike
