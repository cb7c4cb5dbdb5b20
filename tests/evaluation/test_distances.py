"""Real digits beat blurred ones, and these beat noise, by every distance and by whatever sees them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.data.labelled import scaled
from fromnoise.evaluation.distances.compared import compared
from fromnoise.evaluation.features.extractor import extractor_of
from fromnoise.evaluation.judges.domains import DIGITS

COUNT = 500


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor, Tensor]:
    """Real ones to judge, others for the floor, and the reference."""
    held_out, test = (DIGITS.published().pictures(split)[0] for split in ("validation", "test"))
    return scaled(held_out[:COUNT]), scaled(held_out[COUNT : 2 * COUNT]), scaled(test[:2000])


@pytest.mark.parametrize("name", ["mnist", "pixels"])
def test_real_beats_blurred_beats_noise(name: str, digits: tuple[Tensor, Tensor, Tensor]) -> None:
    see = extractor_of(name, torch.device("cpu")).see
    real, floor, reference = digits
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(real.shape, generator=generator) * 2 - 1
    blurred = F.avg_pool2d(real, 5, stride=1, padding=2)
    against = see(floor), see(reference)
    good, bad, worst = (compared(see(images), *against)[0] for images in (real, blurred, noise))
    for key in ("frechet", "kernel"):
        assert good[key] < bad[key] < worst[key]
        assert good[key] == pytest.approx(good[key + "_floor"], abs=0.2 * bad[key])
    for key in ("precision", "density", "coverage"):
        assert good[key] > worst[key] and good[key] == pytest.approx(good[key + "_floor"], abs=0.1)
    assert good["coverage"] > bad["coverage"] > worst["coverage"]
    assert worst["precision"] < 0.05 and worst["recall"] < 0.05 < good["recall"]
