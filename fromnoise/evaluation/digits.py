"""MNIST's protocol: draw digits of every class alike, and let a frozen classifier say what they are and how far they
lie from real ones. Legend: N pictures, D features, S side.

Conditional accuracy is the share of pictures in which the classifier sees the class asked for. The Frechet distance is
between its features of the pictures and of the 10,000 test digits; beside it stands the floor, the distance of as many
real training digits. Accuracy alone is pleased by ten pictures drawn over and over: distance and diversity are not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fromnoise.data.labelled import LabelledData, scaled
from fromnoise.data.mnist import WORDS
from fromnoise.evaluation import frechet
from fromnoise.evaluation.classifier import DigitClassifier
from fromnoise.pipeline.pipeline import Pipeline

CLASSES = 10
PART = 1000  # real digits classified between two signs of life
PAIRS = 2000  # of pictures of one class, whose distances are averaged


class Digits(NamedTuple):
    """Pictures drawn, and what was asked for."""

    images: Tensor  # (N, 1, S, S) in [-1, 1]
    labels: Tensor  # (N,) int64
    seconds: float  # that drawing took


class Reference(NamedTuple):
    """Features of real digits."""

    learned: Tensor  # (M, D) of those trained on
    test: Tensor  # (10000, D)
    learned_labels: Tensor  # (M,)


def prompts(count: int) -> tuple[list[str], list[int]]:
    """What picture i is asked to show, in words and as a class: the classes go round."""
    labels = [i % CLASSES for i in range(count)]
    return [f"a handwritten {WORDS[label]}" for label in labels], labels


def draw(
    pipeline: Pipeline,
    count: int,
    seed: int = 0,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    batch: int = 250,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Digits:
    """`count` digits, the classes in turn; picture i from the noise of `seed` + i, so that all models see the same.

    Raises:
        ValueError: one line, for a model of other pictures than one channel, or what `Pipeline.stream` refuses.
    """
    if pipeline.config.channels != 1:
        raise ValueError(f"a model of {pipeline.config.channels} channels draws no MNIST digits; allowed: 1 channel")
    said, labels = prompts(count)
    parts = []
    began = time.perf_counter()
    for first in range(0, count, batch):
        rows = slice(first, first + batch)
        for step in pipeline.stream(said[rows], steps, guidance, seed + first, sampler=sampler, labels=labels[rows]):
            last = step.x
        parts.append(pipeline.space.decode(last).float().cpu())  # (B, 1, S, S)
        progress(min(first + batch, count), count)
    return Digits(torch.cat(parts), torch.tensor(labels), time.perf_counter() - began)


def reference(
    classifier: DigitClassifier,
    data: LabelledData,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reference:
    """Features of MNIST's own digits, `MNISTConfig().build(seed)`; errors as in `LabelledData.pictures`."""
    (learned, labels), (test, _) = data.pictures("train"), data.pictures("test")
    both, features = torch.cat((learned, test)), []
    for part in both.split(PART):
        features.append(classifier.classify(scaled(part)).features)
        progress(PART * len(features), len(both))
    seen = torch.cat(features)  # (M + 10000, D)
    return Reference(seen[: len(learned)], seen[len(learned) :], labels)


def measure(digits: Digits, classifier: DigitClassifier, real: Reference) -> dict[str, Any]:
    """What the classifier makes of the digits, plain numbers for JSON.

    accuracy: share that shows what was asked for, with its 95 % interval (Wilson 1927). by_class: of each class.
    frechet: distance to the test digits; frechet_floor: that of as many real training digits.
    diversity: mean distance between the features of two pictures of one class, as a share of that of real digits.
    """
    judged = classifier.classify(digits.images)
    seen = judged.logits.argmax(1)  # (N,)
    right = seen == digits.labels  # (N,) bool
    count = len(right)
    return {
        "samples": count,
        "accuracy": right.double().mean().item(),
        "accuracy_interval": list(wilson(int(right.sum()), count)),
        "by_class": [right[digits.labels == k].double().mean().item() for k in range(min(CLASSES, count))],
        "seen": torch.bincount(seen, minlength=CLASSES).div(count).tolist(),
        "frechet": frechet.frechet_distance(judged.features, real.test),
        "frechet_floor": frechet.floor(real.learned, real.test, min(count, len(real.learned))),
        "diversity": spread(judged.features, digits.labels) / spread(real.learned, real.learned_labels),
        "images_per_second": count / digits.seconds,
    }


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share, `right` out of `count` (Wilson 1927): never outside 0 to 1, also where all are."""
    share, spare = right / count, z * z / count
    middle = share + spare / 2
    half = math.sqrt(share * (1 - share) * spare + spare**2 / 4)
    return (middle - half) / (1 + spare), (middle + half) / (1 + spare)


def spread(features: Tensor, labels: Tensor) -> float:
    """Mean distance between two features (N, D) of one class, over fixed pairs of every class."""
    generator = torch.Generator().manual_seed(0)
    distances = []
    for k in range(CLASSES):
        own = features[labels == k]
        if len(own) > 1:
            first = torch.randint(len(own), (PAIRS,), generator=generator)
            second = (first + torch.randint(1, len(own), (PAIRS,), generator=generator)) % len(own)  # never the first
            distances.append((own[first] - own[second]).norm(dim=1).mean())
    return torch.stack(distances).mean().item() if distances else 0.0
