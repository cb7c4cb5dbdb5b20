"""A forward makes all it needs where it runs: a copy from the processor lets a GPU end all that it was asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.correctness import kinds
from fromnoise.core.types import Cond

KINDS = kinds()


class Elsewhere(TorchDispatchMode):
    """Operations that have to do with a tensor of the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" for x in tensors):
            self.found.append(str(func))
        return made


@pytest.mark.parametrize("name", KINDS)
def test_a_forward_has_nothing_to_do_with_another_device(name: str) -> None:
    with torch.device("meta"):
        backbone = KINDS[name].build(channels=4, cond_width=16)
        tokens, mask = torch.empty(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
        x, t, cond = torch.empty(2, 4, 16, 16), torch.empty(2), Cond(tokens, mask, tokens.mean(1))
    backbone(x, t, cond)  # rotations are made at the first, and kept
    with Elsewhere() as elsewhere:
        backbone(x, t, cond)
    assert not elsewhere.found
