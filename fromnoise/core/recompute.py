"""Modules whose activations are computed again in the backward, so that a step holds less of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(modules: Sequence[nn.Module], wanted: bool) -> None:
    """Let `modules` keep what they are given and nothing else, where that is `wanted`, and compute the rest again when
    the backward asks for it (gradient checkpointing: Chen et al. 2016); where it is not, let them keep all.

    It is a module's own `forward` that is replaced: what hangs on its call (compilation, the gathering of shared
    weights) stays around it. The modules draw nothing by chance, or else would have to draw the same again.
    """
    for module in modules:
        vars(module).pop("forward", None)
        if wanted:
            module.forward = _again(module.forward)


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, computed again in the backward. A function of ours: where the first frame that torch.compile sees is
    PyTorch's own, as of a `partial` of `checkpoint`, it compiles nothing and says nothing."""

    def computed(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False)

    return computed
