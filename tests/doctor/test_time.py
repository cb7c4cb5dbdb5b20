"""How many numbers a description of the time is worth."""

from __future__ import annotations

import pytest
import torch

from fromnoise.doctor.time import effective_rank


def test_the_effective_rank_counts_what_is_independent() -> None:
    generator = torch.Generator().manual_seed(0)
    waves = torch.arange(64)[:, None] * torch.arange(1, 6) * (2 * torch.pi / 64)  # (64, 5)
    features = waves.cos()  # orthogonal, of equal variance and mean 0
    assert effective_rank(features) == pytest.approx(5)
    assert effective_rank(torch.cat((features, features + 3), 1)) == pytest.approx(5)  # copies add nothing
    assert effective_rank(torch.randn(64, 1, generator=generator).expand(64, 9)) == pytest.approx(1)
