"""Pixel space changes nothing but what lies outside the range of a picture."""

import torch

from fromnoise.space.config import PixelConfig


def test_pictures_come_back_exactly_and_overshoot_is_clipped():
    space = PixelConfig().build()
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = space.latent(space.encode(images), torch.Generator())
    assert torch.equal(space.decode(z), images)
    assert tuple(z.shape[1:]) == space.latent_shape(3, 8, 12)
    assert space.decode(3 * z).abs().max() == 1
    assert not list(space.parameters())
