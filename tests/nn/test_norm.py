"""Norms against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("mean", [0.0, 300.0])  # far from 0 the difference of two large sums would be lost
@pytest.mark.parametrize("groups", [2, 4])
def test_by_channel_it_is_the_same(mean: float, groups: int) -> None:
    torch.manual_seed(0)
    norm = GroupNorm(groups, 8, 1e-5)
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(torch.randn(8))
    x = torch.randn(2, 8, 6, 10) + mean + torch.randn(8)[:, None, None]
    torch.testing.assert_close(norm.by_channel(x), norm(x), atol=2e-4 if mean else 1e-5, rtol=1e-5)
    assert norm.by_channel(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_it_averages_each_channel_first_and_gradients_agree(layout: torch.memory_format) -> None:
    called: list[object] = []

    def watch(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        called.extend(node.target for node in graph.graph.nodes)
        return graph

    torch.manual_seed(0)
    norm, x = GroupNorm(2, 12), torch.randn(2, 12, 6, 10).to(memory_format=layout).requires_grad_()
    weights, wanted = [x, norm.weight, norm.bias], torch.randn(2, 12, 6, 10)
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(torch.randn(12))
    found = torch.compile(norm, backend=watch)(x)
    assert F.group_norm not in called
    torch.testing.assert_close(found, norm(x), atol=1e-5, rtol=1e-5)
    ours, plain = (torch.autograd.grad((y * wanted).sum(), weights) for y in (found, norm(x)))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_groups_are_averaged_in_float32_where_products_are_not() -> None:
    norm, x = GroupNorm(2, 6), 100 + torch.randn(4, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm.by_channel(x)
    torch.testing.assert_close(found, norm(x), atol=1e-4, rtol=1e-4)
