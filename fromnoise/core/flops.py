"""Floating-point operations, counted as they are done."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(call: Callable[[], object]) -> int:
    """Operations of `call`, two for each multiplication with addition: matrix products, convolutions and attention, as
    is usual; what is done element by element does not count."""
    # As plain products: the counter knows no fused kernel of a CPU, and would count nothing.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()
