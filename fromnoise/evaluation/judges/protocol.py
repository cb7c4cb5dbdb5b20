"""The protocol of labelled pictures: draw every class alike, and let a frozen classifier say what the pictures show and
how far they lie from real ones. Legend: N pictures, C channels, S side, D features.

Conditional accuracy is the share of pictures in which the classifier sees the class asked for. The Frechet distance is
between its features of the pictures and of real ones that were not trained on; beside it stands the floor, the distance
of as many real training pictures. Accuracy alone is pleased by ten pictures drawn over and over: distance and diversity
are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fromnoise.data.labelled import LabelledData, scaled
from fromnoise.evaluation.distances import frechet
from fromnoise.evaluation.intervals import wilson
from fromnoise.evaluation.judges.classifier import Classifier, Domain
from fromnoise.pipeline.pipeline import Pipeline

PART = 1000  # real pictures classified between two signs of life
PAIRS = 2000  # of pictures of one class, whose distances are averaged
UNTOLD: dict[str, Any] = dict.fromkeys(("accuracy", "accuracy_interval", "by_class", "diversity"))
"""In place of what says nothing of a model that is not told what to draw."""


class Drawn(NamedTuple):
    """Pictures drawn, and what was asked for."""

    images: Tensor  # (N, C, S, S) in [-1, 1]
    labels: Tensor  # (N,) int64
    seconds: float  # that drawing took


class Reference(NamedTuple):
    """Features of real pictures."""

    learned: Tensor  # (M, D) of those trained on
    kept: Tensor  # (R, D) of those that drawn pictures are compared with
    learned_labels: Tensor  # (M,)


def prompts(domain: Domain, count: int) -> tuple[list[str], list[int]]:
    """What picture i is asked to show, in words and as a class: the classes go round, and with every round so do the
    ways to say them."""
    classes = len(domain.classes)
    labels = [i % classes for i in range(count)]
    ways = [domain.said[label] for label in labels]
    return [said[i // classes % len(said)] for i, said in enumerate(ways)], labels


def draw(
    domain: Domain,
    pipeline: Pipeline,
    count: int,
    seed: int = 0,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    batch: int = 250,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Drawn:
    """`count` pictures, the classes in turn; picture i from the noise of `seed` + i, so that all models see the same.

    Raises:
        ValueError: one line, for a model of other pictures than the domain's, or what `Pipeline.stream` refuses.
    """
    shape = (pipeline.config.channels, pipeline.config.size)
    if shape not in ((domain.channels, side) for side in domain.sides):
        sides = " or ".join(map(str, domain.sides))
        raise ValueError(
            f"a model of {shape[0]} channels and {shape[1]} pixels draws no {domain.name} that can be judged; "
            f"allowed: {domain.channels} channels, {sides} pixels"
        )
    said, labels = prompts(domain, count)
    return draw_all(
        pipeline,
        said,
        labels,
        seed,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        batch=batch,
        progress=progress,
    )


def draw_all(
    pipeline: Pipeline,
    said: Sequence[str],
    labels: Sequence[int],
    seed: int,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    batch: int = 250,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Drawn:
    """A picture of each prompt, picture i from the noise of `seed` + i; errors as in `Pipeline.stream`."""
    count, parts = len(said), []
    began = time.perf_counter()
    for first in range(0, count, batch):
        rows = slice(first, first + batch)
        for step in pipeline.stream(said[rows], steps, guidance, seed + first, sampler=sampler, labels=labels[rows]):
            last = step.x
        parts.append(pipeline.space.decode(last).float().cpu())  # (B, C, S, S)
        progress(min(first + batch, count), count)
    return Drawn(torch.cat(parts), torch.tensor(labels), time.perf_counter() - began)


def reference(
    classifier: Classifier,
    data: LabelledData,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reference:
    """Features of the domain's own pictures, `Domain.published()`; errors as in `LabelledData.pictures`."""
    domain = classifier.domain
    learned, labels = (some[: domain.learned] for some in data.pictures("train"))
    kept, _ = data.pictures(domain.reference)
    both, features = torch.cat((learned, kept)), []
    for part in both.split(PART):
        features.append(classifier.classify(scaled(part)).features)
        progress(min(PART * len(features), len(both)), len(both))
    seen = torch.cat(features)  # (M + R, D)
    return Reference(seen[: len(learned)], seen[len(learned) :], labels)


def measure(drawn: Drawn, classifier: Classifier, real: Reference) -> dict[str, Any]:
    """What the classifier makes of the pictures, plain numbers for JSON; `UNTOLD` holds of models that read prompts.

    accuracy: share that shows what was asked for, with its 95 % interval (Wilson 1927). by_class: of each class.
    frechet: distance to the real pictures kept; frechet_floor: that of as many real training pictures.
    diversity: mean distance between the features of two pictures of one class, as a share of that of real ones.
    """
    judged = classifier.classify(drawn.images)
    classes = judged.logits.shape[1]
    seen = judged.logits.argmax(1)  # (N,)
    right = seen == drawn.labels  # (N,) bool
    count = len(right)
    return {
        "samples": count,
        "accuracy": right.double().mean().item(),
        "accuracy_interval": list(wilson(int(right.sum()), count)),
        "by_class": [right[drawn.labels == k].double().mean().item() for k in range(min(classes, count))],
        "seen": torch.bincount(seen, minlength=classes).div(count).tolist(),
        "frechet": frechet.frechet_distance(judged.features, real.kept),
        "frechet_floor": frechet.floor(real.learned, real.kept, min(count, len(real.learned))),
        "diversity": spread(judged.features, drawn.labels) / spread(real.learned, real.learned_labels),
        "images_per_second": count / drawn.seconds,
    }


def spread(features: Tensor, labels: Tensor) -> float:
    """Mean distance between two features (N, D) of one class, over fixed pairs of every class."""
    generator = torch.Generator().manual_seed(0)
    distances = []
    for k in labels.unique():
        own = features[labels == k]
        if len(own) > 1:
            first = torch.randint(len(own), (PAIRS,), generator=generator)
            second = (first + torch.randint(1, len(own), (PAIRS,), generator=generator)) % len(own)  # never the first
            distances.append((own[first] - own[second]).norm(dim=1).mean())
    return torch.stack(distances).mean().item() if distances else 0.0
