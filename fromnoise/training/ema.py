"""The average of the weights that draws best: exponential, its length a share of the steps planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


def _as_given(weight: Tensor, values: Tensor) -> Tensor:
    return values


def _itself(tensor: Tensor) -> Tensor:
    return tensor


class Ema:
    """Exponential moving average of every parameter of `model` (Karras et al. 2024 tie its length to the run's).

    length: updates over which a weight's share falls by e. looking: the context in which the model can be asked without
    gradients. held: what of a tensor is here. Both of `Parallel`.
    """

    def __init__(
        self,
        model: nn.Module,
        length: float,
        looking: Callable[[], AbstractContextManager[None]] = nullcontext,
        held: Callable[[Tensor], Tensor] = _itself,
    ):
        self.names = [name for name, _ in model.named_parameters()]
        self.weights: list[Tensor] = list(model.parameters())
        self.average = [p.detach().clone() for p in self.weights]
        self.length, self.looking, self.held = length, looking, held

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
        with self.looking():
            yield

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's parameters are the average, and it can be asked."""
        self._swap()
        try:
            with self.looking():
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
        return [self.held(average) for average in self.average], [self.held(p) for p in self.weights]

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], like: Callable[[Tensor, Tensor], Tensor] = _as_given) -> None:
        """Take up the average from the tensors of a model saved inside `applied`; `like` holds one as a weight is."""
        for name, average in zip(self.names, self.average, strict=True):
            average.copy_(like(average, tensors[name]))
