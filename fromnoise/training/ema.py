"""The average of the weights that draws best: exponential, its length a share of the steps planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.training.parallel import SINGLE, Parallel


class Ema:
    """Exponential moving average of every parameter of `model` (Karras et al. 2024 tie its length to the run's).

    length: updates over which a weight's share falls by e. parallel: how the model is trained together.
    """

    def __init__(self, model: nn.Module, length: float, parallel: Parallel = SINGLE):
        self.model: Any = model
        self.length, self.parallel = length, parallel
        self.names = [name for name, _ in model.named_parameters()]
        self.weights: list[Tensor] = list(model.parameters())
        self.average = [p.detach().clone() for p in self.weights]

    def decay(self, step: int) -> float:
        """Share of the average kept by update `step` (0-based). It warms up, so that the first weights, which are
        noise, leave no trace: their share after k updates is below 9! / k^9 until the length is reached."""
        return min(1 - 1 / max(self.length, 1.0), (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that optimizer step `step` (0-based) made."""
        torch._foreach_lerp_(*self._here(), 1 - self.decay(step))

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Inside, the model can be asked with its weights as they are."""
        with self.parallel.looking(self.model):
            yield

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's parameters are the average, and it can be asked."""
        self._swap()
        try:
            with self.parallel.looking(self.model):
                yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, p in zip(*self._here(), strict=True):
            kept = p.clone()  # all in place: FSDP knows its shares by where they lie
            p.copy_(average)
            average.copy_(kept)

    def _here(self) -> tuple[list[Tensor], list[Tensor]]:
        """What is here of the average, and of the weights."""
        held = self.parallel.held
        return [held(average) for average in self.average], [held(p) for p in self.weights]

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the average from the tensors, whole, of a model saved inside `applied`."""
        for name, average in zip(self.names, self.average, strict=True):
            average.copy_(self.parallel.like(average, tensors[name]))
