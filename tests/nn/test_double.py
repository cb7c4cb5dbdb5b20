"""Twice the side, in either layout, compiled or not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fromnoise.nn.double import doubled


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("compiled", [False, True])
def test_doubled_is_each_place_four_times_and_learns_from_all_four(layout: torch.memory_format, compiled: bool) -> None:
    x, weigh = torch.randn(2, 5, 3, 4).contiguous(memory_format=layout), torch.randn(2, 5, 6, 8)
    call = torch.compile(doubled, backend="aot_eager", fullgraph=True) if compiled else doubled
    given = x.requires_grad_()
    out = call(given)
    assert torch.equal(out, F.interpolate(x, scale_factor=2.0))
    (out * weigh).sum().backward()
    torch.testing.assert_close(given.grad, 4 * F.avg_pool2d(weigh, 2))
