"""Tensors on their way from the CPU to where a model runs. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`, which is not waited for where that is safe.

    CUDA has read `x` when it returns, or holds on to it. PyTorch's copies for an Apple GPU do neither: not waited for,
    they read memory that may be another's by then, and the numbers are wrong (its issues 139550 and 189690).
    """
    return x.to(device, non_blocking=device.type != "mps")
