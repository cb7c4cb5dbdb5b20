"""Every distance between the features of drawn and of real pictures, each beside what real pictures reach themselves.

Legend: N, M, R pictures, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fromnoise.evaluation.distances.frechet import frechet_distance
from fromnoise.evaluation.distances.kernel import kernel_distance
from fromnoise.evaluation.distances.manifold import density_coverage, precision_recall

LEAST = {"frechet": 10, "kernel": 20, "precision and recall": 10, "density and coverage": 10}
"""Pictures without which a number says nothing: subsets of ten, and twice the neighbours that a ball reaches to."""


def compared(drawn: Tensor, floor: Tensor, reference: Tensor) -> tuple[dict[str, Any], list[str]]:
    """What is to be told of drawn features (N, D), plain numbers for JSON; and a sentence for each that too few
    pictures do not allow.

    floor: (M, D) of real pictures that are not in `reference` (R, D). Drawn and floor are cut to the same number, as
    every one of these depends on it; balls are compared among equal numbers, too.
    """
    count = min(len(drawn), len(floor))
    sets = {"": drawn[:count], "_floor": floor[:count]}
    balls = reference[_some(len(reference), count)]
    found: dict[str, Any] = {"samples": count, "reference": len(reference)}
    for end, features in sets.items():
        pictures = min(count, len(reference))
        if pictures >= LEAST["frechet"]:
            found["frechet" + end] = frechet_distance(features, reference)
        if pictures >= LEAST["kernel"]:
            kernel = kernel_distance(features, reference)
            found |= {"kernel" + end: kernel.mean, f"kernel{end}_deviation": kernel.deviation}
            found["kernel_subset"] = kernel.size
        if pictures >= LEAST["precision and recall"]:
            found["precision" + end], found["recall" + end] = precision_recall(features, balls)
        if pictures >= LEAST["density and coverage"]:
            found["density" + end], found["coverage" + end] = density_coverage(features, balls)
    few = [
        f"{name} of {pictures} pictures would say nothing; allowed: {least} or more"
        for name, least in LEAST.items()
        if pictures < least
    ]
    width = drawn.shape[1]
    if "frechet" in found and count <= width:
        few.append(f"frechet of {count:,} pictures by {width:,} features is mostly bias: read it beside its floor only")
    return found, few


def _some(total: int, count: int) -> Tensor:
    """Fixed places of at most `count` among `total`."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count]
