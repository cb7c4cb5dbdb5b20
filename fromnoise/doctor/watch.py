"""Looking at what happens inside a model while it works. Legend: B batch, F features, H heads, L queries, M keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fromnoise.core.config import Config
from fromnoise.core.types import Cond
from fromnoise.nn.embed import TimestepEmbedding


class Seen(Exception):
    """What was to be seen was seen: nothing after it is of interest."""


@contextmanager
def given(module: nn.Module, look: Callable[[tuple[Any, ...]], None]) -> Iterator[None]:
    """Inside, `look` gets the arguments of every call of `module`."""
    hook = module.register_forward_pre_hook(lambda _, args: look(args))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def replaced(model: Any, other: nn.Module) -> Iterator[Any]:
    """Inside, `other` answers in place of the model's backbone."""
    backbone = model.backbone
    model.backbone = other
    try:
        yield model
    finally:
        model.backbone = backbone


def conditions(model: Any, act: Callable[[], object]) -> list[Cond]:
    """The conditions that the backbone is given while `act` works."""
    found: list[Cond] = []
    with given(model.backbone, lambda args: found.append(args[2])):
        act()
    return found


def time_features(model: Any, act: Callable[[], object], *, stop: bool) -> Tensor | None:
    """What the backbone's time embedding is given while `act` works, row by row (B, F), where all that differs from row
    to row is the time; None where nothing hangs on it. With `stop`, nothing is done after the first forward got there.
    """
    embeddings = [module for module in model.backbone.modules() if isinstance(module, TimestepEmbedding)]
    found: dict[int, list[Tensor]] = {i: [] for i in range(len(embeddings))}

    def look(i: int, args: tuple[Any, ...]) -> None:
        found[i].append(args[0].detach().float())
        if stop and _vary(args[0]):
            raise Seen

    with ExitStack() as stack, suppress(Seen):
        for i, module in enumerate(embeddings):
            stack.enter_context(given(module, partial(look, i)))
        act()
    # What embeds the condition is a module of the same class, but says the same in every row.
    return next((rows for parts in found.values() if parts and _vary(rows := torch.cat(parts))), None)


def _vary(features: Tensor) -> bool:
    return bool((features != features[:1]).any())


class Logits(TorchFunctionMode):
    """Inside, the largest attention logit is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k = args[0], args[1]  # (B, H, L, D), (B, H, M, D)
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, H, L, M)
            mask = (kwargs or {}).get("attn_mask")
            real = logits if mask is None else logits[(mask > -1.0).expand_as(logits)]
            self.largest = max(self.largest, float(real.abs().max()))
        return func(*args, **(kwargs or {}))


@contextmanager
def fields_read() -> Iterator[set[tuple[type, str]]]:
    """Which fields of which configs are read inside."""
    seen: set[tuple[type, str]] = set()

    def get(self: Config, name: str) -> Any:
        seen.add((object.__getattribute__(self, "__class__"), name))
        return object.__getattribute__(self, name)

    Config.__getattribute__ = get  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del Config.__getattribute__  # type: ignore[attr-defined]


def calls(modules: list[nn.Module], act: Callable[[], object]) -> int:
    """How often any of `modules` is called while `act` works."""
    count = 0

    def look(args: object) -> None:
        nonlocal count
        count += 1

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(given(module, look))
        act()
    return count


@torch.no_grad()
def answer(model: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """What the backbone answers, (B, C, H, W)."""
    return model.backbone(x, t, cond)
