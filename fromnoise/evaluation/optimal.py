"""The best denoiser there is for a set of pictures: the mean of all of them, each weighed by how likely x_t came from
it. Its error is the floor of the training loss; a model that reaches it has learned the set by heart.

Legend: B batch, N training pictures, D numbers of one, W its 1 or D variances, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fromnoise.core.types import Data
from fromnoise.diffusion.path import mix
from fromnoise.diffusion.predict import predictor
from fromnoise.diffusion.target import TARGETS
from fromnoise.evaluation.features.real import PART, NotMeasured
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.latent import LatentSpace
from fromnoise.training.validation import BINS

PICTURES = 100
ROWS = 2048  # training pictures weighed together
LARGEST = 50_000_000  # numbers of a training set: MNIST has 43 million


class Known(NamedTuple):
    """A training set: each picture is normally distributed, with variance 0 where it is what it is."""

    mean: Tensor  # (N, D)
    variance: Tensor  # (N, W), W = D, or 1 where it is the same for all

    def parts(self) -> Iterator[Known]:
        """Some rows at a time."""
        for mean, variance in zip(self.mean.split(ROWS), self.variance.split(ROWS), strict=True):
            yield Known(mean, variance)


def posterior_mean(x_t: Tensor, alpha: float, sigma: float, known: Known) -> Tensor:
    """E[x0 | x_t] when x0 is a picture of `known`, each as likely; x_t (B, D) float64 -> (B, D).

    For points it is sum_i softmax_i(-|x_t - alpha x_i|^2 / (2 sigma^2)) x_i (Karras et al. 2022, Eq. 57); for normal
    distributions each picture moves towards x_t by its share of the variance. The softmax is summed part by part.
    """
    top = x_t.new_full((len(x_t), 1), -torch.inf)  # (B, 1) largest logarithm so far
    weight, total = torch.zeros_like(top), torch.zeros_like(x_t)  # (B, 1), (B, D)
    for part in known.parts():
        mean, spread = part.mean.double(), part.variance.double()  # (n, D), (n, W)
        variance = alpha**2 * spread + sigma**2  # (n, W) of x_t
        squares = x_t.square(), alpha**2 * mean.square()  # (B, D), (n, D)
        ours, theirs = squares if spread.shape[1] > 1 else (one.sum(1, keepdim=True) for one in squares)
        fit = ours @ (1 / variance).T - 2 * x_t @ (alpha * mean / variance).T + (theirs / variance).sum(1)  # (B, n)
        logits = -(fit + variance.log().sum(1)) / 2  # (B, n)
        highest = torch.maximum(top, logits.amax(1, keepdim=True))  # (B, 1)
        shares, before = (logits - highest).exp(), (top - highest).exp()  # (B, n), (B, 1)
        gain = alpha * spread / variance  # (n, W) of x_t - alpha mean
        moved = shares @ (mean * (1 - alpha * gain)) + x_t * (shares @ gain)  # (B, D)
        top, weight, total = highest, before * weight + shares.sum(1, keepdim=True), before * total + moved
    return total / weight


@torch.no_grad()
def by_time(
    pipeline: Pipeline, data: Data, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Mean squared errors of the expected x0 at the middle of each tenth of the time, plain numbers for JSON: of the
    model, told nothing, and of the best denoiser for the training set, on training pictures and on held-out ones.

    On training pictures the best denoiser's is a floor: no model can have less, on average. On held-out pictures it is
    what learning by heart is worth; a model that has learned more than the pictures has less.

    Raises:
        NotMeasured: where there is no such floor, or the set is too large for it.
    """
    known = read(pipeline, data)
    counts, generator = data.counts, torch.Generator().manual_seed(0)
    assert counts is not None, "a set without end was refused"
    sets = {"training": data.train(0, PICTURES)} | (
        {"validation": data.validation(PICTURES)} if counts.held_out else {}
    )
    path, target = pipeline.config.path, TARGETS[pipeline.config.objective.target]
    predict = predictor(pipeline.backbone, pipeline.conditioner.null(PICTURES), path=path, target=target)
    found: dict[str, Any] = {
        "pictures": PICTURES,
        "training_pictures": len(known.mean),
        "times": [(k + 0.5) / BINS for k in range(BINS)],
    }
    for turn, (name, batch) in enumerate(sets.items()):
        z = pipeline.latents(batch, generator)  # (B, C, H, W)
        eps = torch.randn(z.shape, generator=generator)  # (B, C, H, W)
        ours, best = [], []
        for k, time in enumerate(found["times"]):
            t = torch.full((PICTURES,), time)  # (B,)
            coefs = path(t)
            x_t = mix(coefs, z, eps)  # (B, C, H, W)
            expected = predict(x_t.to(pipeline.device), t.to(pipeline.device)).x0.cpu()  # (B, C, H, W)
            alpha, sigma = coefs.alpha[0].item(), coefs.sigma[0].item()
            optimal = posterior_mean(x_t.flatten(1).double(), alpha, sigma, known)  # (B, D)
            ours.append((expected - z).square().mean().item())
            best.append((optimal - z.flatten(1)).square().mean().item())
            progress(turn * BINS + k + 1, len(sets) * BINS)
        found |= {name: ours, f"{name}_best": best}
    return found


def read(pipeline: Pipeline, data: Data) -> Known:
    """The whole training set as the backbone sees it, mean and variance of each picture.

    Raises:
        NotMeasured: one line, where it has no end, is too large, or is not what the model learns from.
    """
    counts, config = data.counts, pipeline.config
    if counts is None:
        raise NotMeasured("training pictures without end: no denoiser is the best for them that could be written down")
    if config.objective.dropout == 0 and config.conditioner.type != "none":
        raise NotMeasured("no prompt is dropped in training: the model was never asked what it expects without one")
    if counts.mirrored:
        raise NotMeasured("training mirrors half of the pictures, by chance: the set is not the one on disk")
    if len(data.sizes) > 1:
        raise NotMeasured(f"pictures of {len(data.sizes)} sizes: each would have a floor of its own")
    trained, validated = (batch.images.shape for batch in (data.train(0, 1), data.validation(1)))
    if counts.held_out and trained != validated:
        height, width = data.sizes[0]
        raise NotMeasured(f"all training pictures are {height}x{width}, and held-out ones have another size")
    channels, height, width = pipeline.latent_shape(*data.image_shape[1:])
    numbers = counts.learned * channels * height * width
    if numbers > LARGEST:
        raise NotMeasured(
            f"{counts.learned:,} training pictures of {channels * height * width:,} numbers are {numbers:,}; allowed: "
            f"{LARGEST:,} at most, as every one is weighed at every time"
        )
    parts = []
    for step in range(-(-counts.learned // PART)):
        batch = data.train(step, PART)
        stored = batch.images if batch.encoded else pipeline.space.encode(batch.images)  # (B, S, h, w)
        parts.append(_described(pipeline, stored))
    mean, variance = (torch.cat(some)[: counts.learned] for some in zip(*parts, strict=True))
    return Known(mean, variance)


def _described(pipeline: Pipeline, stored: Tensor) -> Known:
    """Mean and variance of the latents that are drawn of what is stored, (B, S, h, w)."""
    space = pipeline.space
    if not (isinstance(space, LatentSpace) and space.std):
        mean = space.latent(stored).flatten(1)  # (B, D)
        return Known(mean, mean.new_zeros(len(mean), 1))
    mean, std = stored.chunk(2, 1)  # (B, Z, h, w) each
    certain = torch.zeros_like(std)
    middle = space.latent(torch.cat((mean, certain), 1))  # (B, Z, h, w)
    spread = space.latent(torch.cat((mean + std, certain), 1)) - middle  # scaled as latents are
    return Known(middle.flatten(1), spread.square().flatten(1))
