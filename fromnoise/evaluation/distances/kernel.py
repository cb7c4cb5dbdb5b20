"""Kernel distance between two sets of features: the squared maximum mean discrepancy under a cubic polynomial kernel
(Binkowski et al. 2018; with the features of an Inception network it is KID). Legend: N, M pictures, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SUBSETS, LARGEST = 100, 1000  # as the paper has them


class Kernel(NamedTuple):
    """The distance, and how far the subsets are apart."""

    mean: float
    deviation: float  # standard, over the subsets
    size: int  # pictures of a subset


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x y / D + 1)^3, (N, D) and (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def discrepancy(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of MMD^2 (Gretton et al. 2012, Eq. 3) between features (N, D) and (M, D), which may be
    negative: the mean of k over pairs of two different pictures of each set, less twice that over pairs across."""
    own = []
    for one in (x, y):
        pairs = kernel(one, one)
        own.append((pairs.sum() - pairs.trace()) / (len(one) * (len(one) - 1)))
    return (own[0] + own[1] - 2 * kernel(x, y).mean()).item()


def kernel_distance(features: Tensor, reference: Tensor, subsets: int = SUBSETS, largest: int = LARGEST) -> Kernel:
    """Mean and deviation of `discrepancy` over fixed random subsets of features (N, D) and (M, D), in float64.

    A subset is half of the smaller set, at most `largest`: where it were the whole, all subsets would be the same one.

    Raises:
        ValueError: one line, when a set has fewer than four pictures.
    """
    count = min(len(features), len(reference))
    if count < 4:
        raise ValueError(f"a kernel distance of {count} pictures; allowed: four or more")
    size, generator = min(largest, count // 2), torch.Generator().manual_seed(0)
    found = []
    for _ in range(subsets):
        x, y = (
            some[torch.randperm(len(some), generator=generator)[:size]].double()  # (size, D)
            for some in (features, reference)
        )
        found.append(discrepancy(x, y))
    values = torch.tensor(found, dtype=torch.float64)  # (subsets,)
    return Kernel(values.mean().item(), values.std(correction=0).item(), size)
