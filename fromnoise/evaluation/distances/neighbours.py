"""Is it learned by heart? How near drawn pictures are to their nearest training picture, beside how near real ones are
that were not trained on.

Legend: Q pictures asked about, N training pictures, B batch, D features, K nearest that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fromnoise.evaluation.intervals import below_one

KEPT = 50  # nearest, whose mean distance says what is near around here (Carlini et al. 2023, section 5.1)
NEAR = 0.05  # share of honest drawn pictures that are called near, at most
COPY = 1 / 3  # nearest over second nearest, below which a picture is a copy of the nearest (Yoon et al. 2023)
LEAST = 20  # held-out pictures, without which nothing is known of the nearest twentieth


class Nearest(NamedTuple):
    """Of each picture asked about its nearest training pictures, K of them, or all there are."""

    distance: Tensor  # (Q, K) float64, rising
    place: Tensor  # (Q, K) int64 in the order of the training pictures

    @property
    def relative(self) -> Tensor:
        """Distance of the nearest over the mean of all K, (Q,): 0 of a copy, near 1 of what is like many."""
        return self.distance[:, 0] / self.distance.mean(1).clamp(min=1e-9)


def nearest(
    asked: Tensor,
    mirrored: Tensor | None,
    learned: Iterable[Tensor],
    progress: Callable[[int], None] = lambda done: None,
) -> Nearest:
    """Of features (Q, D) among those of training pictures, (B, D) batches of N in all.

    mirrored: (Q, D) of the same pictures mirrored, where training mirrors: the nearer of both counts.
    """
    ways = [asked.double(), *([] if mirrored is None else [mirrored.double()])]
    squares = torch.empty(len(asked), 0, dtype=torch.float64)
    place = torch.empty(len(asked), 0, dtype=torch.int64)
    done = 0
    for features in learned:
        wide = features.double()
        found = torch.stack([_squares(one, wide) for one in ways]).amin(0)  # (Q, B)
        every = torch.cat((squares, found), 1)  # (Q, K + B)
        squares, at = every.topk(min(KEPT, every.shape[1]), dim=1, largest=False)  # (Q, K) each
        places = torch.cat((place, torch.arange(done, done + len(wide)).expand(len(asked), -1)), 1)  # (Q, K + B)
        place = places.gather(1, at)
        done += len(wide)
        progress(done)
    return Nearest(squares.clamp(min=0).sqrt(), place)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (Q, B) of (Q, D) and (B, D); float64 leaves 1e-6 of the distance of a picture to itself."""
    return x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T


def memorisation(drawn: Nearest, held_out: Nearest) -> dict[str, Any]:
    """What the two say, plain numbers for JSON.

    near: share of the drawn pictures that are relatively nearer to a training picture than the k-th nearest of the M
    held out, k the largest for which k / (M + 1), which is to be expected of a model that copies nothing, is at most
    `NEAR`; with its 95 % interval, in which the chance of the k-th is too. copies: share whose nearest training picture
    is at less than a third of the distance of the second nearest.
    """
    ours, theirs = drawn.distance[:, 0], held_out.distance[:, 0]
    k = int(NEAR * (len(theirs) + 1))
    count = int((drawn.relative < held_out.relative.kthvalue(k).values).sum())
    return {
        "samples": len(ours),
        "held_out": len(theirs),
        "distance": ours.median().item(),
        "distance_held_out": theirs.median().item(),
        "near": count / len(ours),
        "near_interval": list(below_one(count, len(ours), len(theirs))),
        "near_expected": k / (len(theirs) + 1),
        "copies": copies(drawn),
        "copies_held_out": copies(held_out),
    }


def copies(found: Nearest) -> float:
    """Share whose nearest training picture is at less than `COPY` of the distance of the second nearest."""
    return (found.distance[:, 0] < COPY * found.distance[:, 1]).double().mean().item()
