"""The tiny autoencoder (Bohan, TAESD, 2023): learned from a large VAE to map to its latents and back, some sixty times
smaller.

Convolutions and ReLUs, no variance: a picture has one latent. Modules carry the names of diffusers' `AutoencoderTiny`,
whose weights pass both ways as they are (`import_state`, `export_state`). TAEF2, that of FLUX.2's latents, has one part
more than that class: `Pool`.

Legend: B batch, C channels of the picture, Z channels of the latent, H and W rows and columns of the picture, f factor,
h = H / f, w = W / f, D width, r and c rows and columns of a level.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.models.config import TinyConfig
from fromnoise.nn.state import load_strictly

REACH = 3.0  # the decoder bends latents into (-3, 3)
GROUPS = 4  # of a pool's norm, which is as many times as wide as the block


class Point(NamedTuple):
    """What an encoder without a variance knows of a latent."""

    mean: Tensor  # (B, Z, h, w)


class Pool(nn.Sequential):
    """What a block is told of the whole picture: a norm over all places, in wider channels."""

    def __init__(self, width: int):
        wide = GROUPS * width
        super().__init__(
            nn.Conv2d(width, wide, 1, bias=False),
            nn.GroupNorm(GROUPS, wide),
            nn.ReLU(),
            nn.Conv2d(wide, width, 1, bias=False),
        )


class Block(nn.Module):
    """Three convolutions beside a shortcut, behind a pool where there is one."""

    def __init__(self, width: int, pools: bool):
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.pool = Pool(width) if pools else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, r, c) -> (B, D, r, c)."""
        if self.pool is not None:
            x = x + self.pool(x)  # (B, D, r, c)
        return torch.relu(self.conv(x) + x)  # (B, D, r, c)


class Encoder(nn.Module):
    """Pictures to latents."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        width, lowest = config.width, len(config.encoder_layers) - 1
        layers: list[nn.Module] = [nn.Conv2d(config.channels, width, 3, padding=1)]
        for level, count in enumerate(config.encoder_layers):
            if level > 0:
                layers.append(nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False))
            layers += [Block(width, config.midblock_norm and level == lowest) for _ in range(count)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, config.latent_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, Z, h, w)."""
        return self.layers((x + 1) / 2)  # (B, Z, h, w)


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, width, 3, padding=1), nn.ReLU()]
        for level, count in enumerate(config.decoder_layers):
            if level > 0:
                layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(width, width, 3, padding=1, bias=False)]
            layers += [Block(width, config.midblock_norm and level == 0) for _ in range(count)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, config.channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) -> (B, C, H, W), in [-1, 1] but for overshoot."""
        return 2 * self.layers(REACH * torch.tanh(z / REACH)) - 1  # (B, C, H, W)


class TinyAutoencoder(nn.Module):
    """Pictures in [-1, 1] to latents, eight times smaller with the default config, and back."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def encode(self, images: Tensor) -> Point:
        """(B, C, H, W) in [-1, 1], H and W multiples of the factor -> latents (B, Z, h, w)."""
        return Point(self.encoder(images))

    def decode(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) -> (B, C, H, W), in [-1, 1] but for overshoot."""
        return self.decoder(z)  # (B, C, H, W)

    def import_state(self, stock: dict[str, Tensor]) -> None:
        """Take the weights of diffusers' `AutoencoderTiny`, or TAEF2's under such names.

        Raises ValueError where a key is missing, unknown or of another shape.
        """
        load_strictly(self, stock)

    def export_state(self) -> dict[str, Tensor]:
        """The weights under diffusers' names."""
        return {key: value.clone() for key, value in self.state_dict().items()}
