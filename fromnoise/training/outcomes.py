"""What the steps of a training come to: their losses, the norms of their gradients, and whether these are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.core.device import queues
from fromnoise.core.ranks import Ranks
from fromnoise.training.checkpoint import Progress


class Outcomes:
    """Losses and norms, read as soon as that costs nothing, and all that are left by `read`.

    A GPU is told of steps long before it takes them, and to read a number would be to wait for it. So there they stay
    unread, and `broken` becomes 1 for good once one is no number: an optimizer that is given it moves nothing any more,
    and whenever that is found, the weights are still those at which it happened.
    """

    def __init__(
        self, progress: Progress, device: torch.device, ranks: Ranks, refuse: Callable[[int, list[float]], None]
    ):
        """progress: gets the losses that are read, means over all `ranks`. refuse: is given a step and what its loss is
        in each process, where not all are numbers, or the norm is none; raises."""
        self.progress, self.ranks, self.refuse = progress, ranks, refuse
        self.first = progress.step  # of those unread
        self.unread: list[Tensor] = []  # (2,) each: loss, norm
        self.broken = torch.zeros((), device=device) if queues(device) else None
        self.norm = 0.0
        """Of the last step that was read."""

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """One more step came to these losses, (B,), and this norm, ()."""
        outcome = torch.stack((losses.mean(), norm))  # (2,)
        self.unread.append(outcome)
        if self.broken is None:
            self.read()
        else:
            self.broken = torch.maximum(self.broken, (~outcome.isfinite().all()).float())  # ()

    def read(self) -> None:
        """Read all that is unread; what `refuse` raises where a step came to no numbers."""
        if not self.unread:
            return
        losses, norms = torch.stack(self.unread).T.tolist()
        told = self.ranks.every(*losses)
        for step, (norm, means) in enumerate(zip(norms, zip(*told, strict=True), strict=True), self.first):
            loss = math.fsum(means) / self.ranks.size
            if not math.isfinite(loss + norm):
                self.refuse(step, list(means))
            self.progress.losses.append(loss)
            self.norm = norm
        self.first += len(self.unread)
        self.unread.clear()
