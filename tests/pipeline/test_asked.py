"""How often a network is asked for a picture, by hand."""

from __future__ import annotations

import pytest

from fromnoise.pipeline.asked import rows_of_picture
from fromnoise.pipeline.config import ModelConfig, Sampling


@pytest.mark.parametrize(
    ("sampling", "rows"),
    [
        (Sampling(sampler="euler", steps=10, guidance=1.0), 10),
        (Sampling(sampler="euler", steps=10, guidance=0.0), 10),
        (Sampling(sampler="euler", steps=10, guidance=4.0), 20),
        (Sampling(sampler="euler", steps=10, guidance=4.0, interval=(0.0, 0.45)), 14),  # at t = .4, .3, .2, .1
        (Sampling(sampler="ddim", steps=10, guidance=2.0), 20),
    ],
)
def test_rows(sampling: Sampling, rows: int) -> None:
    assert rows_of_picture(ModelConfig(sampling=sampling)) == pytest.approx(rows, abs=1)  # the first t may be below 1


def test_heun_asks_twice_but_for_its_last_step() -> None:
    one = ModelConfig(sampling=Sampling(sampler="heun", steps=10, guidance=1.0))
    assert rows_of_picture(one) == 19
