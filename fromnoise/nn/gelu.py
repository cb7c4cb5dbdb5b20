"""The activation of the feed-forward layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """GELU by its tanh form (Hendrycks and Gimpel 2016), x (...) -> (...).

    Compiled for a CPU, a sigmoid takes a third of the time of tanh, and 0.5 (1 + tanh(u)) is sigmoid(2 u).
    """
    if not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    wide = x.float()
    return (wide * torch.sigmoid(1.5957691216 * (wide + 0.044715 * wide**3))).to(x.dtype)  # 2 sqrt(2 / pi)
