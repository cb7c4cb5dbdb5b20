"""How much of what is drawn is real, and how much of what is real is drawn: precision and recall (Kynkaanniemi et al.
2019), density and coverage (Naeem et al. 2020). Legend: N pictures, D features, B rows compared together.

Each set stands for the balls around its features that reach to the k-th nearest of the same set.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

IMPROVED, DENSE = 3, 5  # k, as the two papers have it
ROWS = 1000


def radii(features: Tensor, k: int) -> Tensor:
    """Distance of each of features (N, D) to the k-th nearest other one, (N,).

    Raises:
        ValueError: one line, when there are not more than k.
    """
    if len(features) <= k:
        raise ValueError(f"balls to neighbour {k} of {len(features)} pictures; allowed: more than {k}")
    parts = [part.kthvalue(k + 1, dim=1).values for part in distances(features, features)]  # itself is the first
    return torch.cat(parts)  # (N,)


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Distances of (N, D) from (M, D), some rows (B, M) of float64 at a time."""
    wide = y.double()
    for part in x.double().split(ROWS):
        yield torch.cdist(part, wide)


def precision_recall(drawn: Tensor, real: Tensor, k: int = IMPROVED) -> tuple[float, float]:
    """Share of the drawn (N, D) that lie in a ball of the real (M, D), and share of the real in a ball of the drawn."""
    return inside(drawn, real, k), inside(real, drawn, k)


def inside(features: Tensor, others: Tensor, k: int) -> float:
    """Share of features (N, D) that lie in some ball of others (M, D)."""
    reach = radii(others, k)  # (M,)
    held = [(part <= reach).any(1) for part in distances(features, others)]  # (B,) bool each
    return torch.cat(held).double().mean().item()


def density_coverage(drawn: Tensor, real: Tensor, k: int = DENSE) -> tuple[float, float]:
    """Of drawn (N, D) beside real (M, D): in how many real balls a drawn picture lies on average, over k, which is 1
    where both are alike and may be more; and the share of real balls in which some drawn picture lies."""
    reach = radii(real, k)  # (M,)
    count = torch.zeros(len(real), dtype=torch.int64, device=real.device)  # (M,) drawn pictures in each ball
    for part in distances(drawn, real):
        count += (part < reach).sum(0)
    return count.sum().item() / (k * len(drawn)), (count > 0).double().mean().item()
