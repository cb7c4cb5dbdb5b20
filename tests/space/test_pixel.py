"""Pixel space moves values, and changes nothing but what lies outside the range of a picture."""

import torch

from fromnoise.space.config import PixelConfig


def test_a_shift_makes_its_colour_zero_and_is_undone():
    space = PixelConfig(shift=0.75).build()
    images = torch.tensor([-1.0, 0.5, 0.75, 1.0]).reshape(1, 1, 2, 2)
    z = space.latent(space.encode(images))
    assert z.flatten().tolist() == [-1.75, -0.25, 0.0, 0.25]
    assert torch.equal(space.decode(z), images)
    assert space.decode(torch.full_like(z, 0.5)).unique().item() == 1


def test_pictures_come_back_exactly_and_overshoot_is_clipped():
    space = PixelConfig().build()
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = space.latent(space.encode(images), torch.Generator())
    assert torch.equal(space.decode(z), images)
    assert tuple(z.shape[1:]) == space.latent_shape(3, 8, 12)
    assert space.decode(3 * z).abs().max() == 1
    assert not list(space.parameters())
