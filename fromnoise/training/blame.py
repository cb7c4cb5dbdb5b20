"""Where a loss stopped being finite: the step is done again, and every module watched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.training.step import accumulate_gradients
from fromnoise.training.trainee import Model, Sample


def find_fault(model: Model, sample: Sample, parts: int, dtype: torch.dtype | None) -> str:
    """In words: which sample at which time, and the first module, or else gradient, that is not finite. In as many
    `parts` as the step was taken in: the whole may not fit."""
    model.zero_grad()
    found: list[str] = []
    hooks = [_watch(module, name, found) for name, module in model.named_modules() if name]
    try:
        # Eager, since hooks do not see what happens inside compiled blocks.
        with torch.compiler.set_stance("force_eager"):
            losses = accumulate_gradients(model, sample, parts, dtype)  # (B,)
    finally:
        for hook in hooks:
            hook.remove()
    which = _first_row(losses)
    who = "" if which is None else f"sample {which} of {len(losses)}{sample.about(which)}, "
    for what, tensor in sample.suspects().items():
        if (row := _first_row(tensor)) is not None:
            return f"{who}the {what} of sample {row}"
    if found:
        return f"{who}output of {found[0]}"
    if which is not None:
        return f"{who}the loss itself"
    # The backward pass runs from the last layer to the first, so the last in order broke first.
    broken = [name for name, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)]
    return f"gradient of {broken[-1]}" if broken else "the sum of all gradients (each by itself is finite)"


def _watch(module: nn.Module, name: str, found: list[str]) -> torch.utils.hooks.RemovableHandle:
    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        if not found and not all(_finite(x) for x in _tensors(output)):
            found.append(name)

    return module.register_forward_hook(look)


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Cond):
        return [output.tokens, output.vector]
    return [x for part in output for x in _tensors(part)] if isinstance(output, tuple) else []


def _finite(x: Tensor) -> bool:
    return bool(x.isfinite().all())


def _first_row(x: Tensor) -> int | None:
    bad = ~x.detach().flatten(1).isfinite().all(1) if x.ndim > 1 else ~x.detach().isfinite()
    return int(bad.int().argmax()) if bool(bad.any()) else None
