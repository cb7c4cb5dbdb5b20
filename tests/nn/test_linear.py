"""Linear layers give and learn the same, compiled or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fromnoise.nn.linear import Linear


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_compiled_a_layer_gives_and_learns_what_it_does_eager(dtype: torch.dtype, within: float) -> None:
    torch.manual_seed(0)
    layer, x, weigh = Linear(24, 40), torch.randn(3, 50, 24), torch.randn(3, 50, 40)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)

    def found(call: Callable[[Tensor], Tensor]) -> list[Tensor]:
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            out = call(given)
        (out.float() * weigh).sum().backward()
        gradients = [out.detach().float(), given.grad, layer.weight.grad, layer.bias.grad]
        layer.zero_grad()
        return gradients

    for ours, eager in zip(found(compiled), found(layer), strict=True):
        assert ours.dtype == eager.dtype
        assert (ours - eager).norm() <= within * eager.norm()
