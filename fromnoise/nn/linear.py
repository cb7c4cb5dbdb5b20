"""Linear layers that compile well. Legend: M rows, I in, O out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (..., I), weight (O, I), bias (O,) -> (..., O).

    Compiled, the bias is added by the kernel that reads the product: torch's own call first copies it to every row.
    """
    if not torch.compiler.is_compiling():
        return F.linear(x, weight, bias)  # (..., O)
    product = F.linear(x, weight)  # (..., O)
    return (product.float() + bias).to(product.dtype)  # (..., O)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return linear(input, self.weight, self.bias)
