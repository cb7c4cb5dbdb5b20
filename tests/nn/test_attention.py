"""Attention by explicit products and by the fused kernel: the same numbers, each where it is the better one."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fromnoise.nn import attention as module
from fromnoise.nn.attention import attention, bias_of


def asked(dtype: torch.dtype, tokens: int = 24) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 16, generator=generator).to(dtype) for _ in range(3))
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[1, tokens // 2 :] = False
    return q, k, v, bias_of(mask)


def test_scores_that_would_be_too_many_are_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, bias = asked(torch.bfloat16)
    explicit = attention(q, k, v, bias)
    monkeypatch.setattr(module, "MOST", 2 * 3 * 24 * 24 - 1)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        fused = attention(q, k, v, bias)
    assert any("flash" in event.key for event in watched.key_averages())
    torch.testing.assert_close(fused, explicit, rtol=0.02, atol=0.02)
    assert not fused.equal(explicit), "two ways to compute it round differently"


@pytest.mark.parametrize("most", [0, 2**30], ids=["fused", "explicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_are_the_softmax_over_real_keys(
    monkeypatch: pytest.MonkeyPatch, most: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(module, "MOST", most)
    q, k, v, bias = asked(dtype)
    scores = q.double() @ k.double().transpose(-1, -2) / 4 + bias.double()
    wanted = scores.softmax(-1) @ v.double()
    torch.testing.assert_close(attention(q, k, v, bias).double(), wanted, rtol=0.03, atol=0.02)
    only = attention(q[1:, :, :, :], k[1:, :, :12], v[1:, :, :12], None)
    torch.testing.assert_close(only.double(), wanted[1:], rtol=0.03, atol=0.02)
