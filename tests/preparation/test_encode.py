"""What is encoded together, and where it is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fromnoise.models.config import VAEConfig
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.encode import FEATURES, PIXELS, Encoder, Models, apart, width_of
from fromnoise.preparation.stages import Stages
from fromnoise.space.config import PixelConfig


@pytest.mark.parametrize(("width", "pictures"), [(4, 3), (64, 2), (128, 1)])
def test_a_wide_encoder_gets_fewer_pictures_at_once(width: int, pictures: int) -> None:
    models = Models(Preparation(size=256), 1, "cpu")
    models.space.vae = VAEConfig(width=width, groups=4, multipliers=(1,), layers=1, attention=False).build()
    assert width_of(models.space) == width
    encoder = Encoder(models, Preparation(size=256), 1, Stages())
    with encoder.at_work():
        assert encoder.pixels // 256**2 == pictures


def test_pixels_have_no_width() -> None:
    assert width_of(PixelConfig().build()) == 1 and PIXELS["cpu"] < FEATURES
    assert width_of(nn.Sequential(nn.Linear(3, 5), nn.Conv2d(3, 7, 1), nn.Conv2d(7, 9, 1))) == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (15,), (3, 5)])
def test_what_is_kept_apart_is_the_same(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.arange(15)[: torch.Size(shape).numel()].view(shape).to(dtype)
    kept = apart(x.t() if x.ndim == 2 else x)
    assert kept.dtype == dtype and kept.equal(x.t() if x.ndim == 2 else x)
    kept.add_(1)
    assert not kept.equal(x.t() if x.ndim == 2 else x)
