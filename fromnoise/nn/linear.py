"""Linear layers that compile well. Legend: M rows, I in, O out."""

from __future__ import annotations

from typing import Any

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
    return Biased.apply(product, bias) if x.device.type == "cpu" else biased(product, bias)  # (..., O)


def biased(product: Tensor, bias: Tensor) -> Tensor:
    """product (..., O) and bias (O,), added in float32 -> (..., O)."""
    return (product.float() + bias).to(product.dtype)  # (..., O)


class Biased(torch.autograd.Function):
    """`biased`, where the gradient of the bias, which is a sum over all rows, is a product with ones.

    Left to itself, code compiled for a CPU takes that sum in a second pass, which computes anew all that it sums, the
    gradient of GELU among it: a step takes 3 to 5 % longer.
    """

    @staticmethod
    def forward(ctx: Any, product: Tensor, bias: Tensor) -> Tensor:
        """product (..., O), bias (O,) -> (..., O)."""
        return biased(product, bias)  # (..., O)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(..., O) -> the same, (O,)."""
        rows = gradient.flatten(0, -2)  # (M, O)
        return gradient, (rows.new_ones(1, len(rows)) @ rows)[0].float()  # (..., O), (O,)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return linear(input, self.weight, self.bias)
