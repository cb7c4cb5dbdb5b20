"""Norms against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fromnoise.nn.norm import FEW, GroupNorm

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("width", [FEW // 2, FEW, 2 * FEW])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_group_norm_is_pytorchs_in_any_layout_and_keeps_it(width: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours, stock = GroupNorm(2, width, 1e-6), nn.GroupNorm(2, width, 1e-6)
    stock.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for p, q in zip(ours.parameters(), stock.parameters(), strict=True):
            assert torch.equal(p, q)  # as PyTorch's begin
            q.copy_(p.copy_(torch.randn(width)))
    x = (3 * torch.randn(2, width, 6, 10) + 1).to(memory_format=layout)
    found = ours(x)
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, stock(x.contiguous()), atol=1e-5, rtol=1e-5)
