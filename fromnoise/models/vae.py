"""The autoencoder of latent diffusion, Stable Diffusion's VAE (Rombach et al. 2022).

The encoder gives each cell of a latent a mean and a variance (Kingma and Welling 2014), the decoder makes a picture of
a draw. ResNet blocks at every level, attention at the lowest only. Modules carry the names of diffusers'
`AutoencoderKL`, whose weights pass both ways as they are (`import_state`, `export_state`).

Legend: B batch, C channels of the picture, Z channels of the latent, H and W rows and columns of the picture, f factor,
h = H / f, w = W / f, S and D channels at the input of a module and at its output, r and c rows and columns of a level.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import VAEConfig
from fromnoise.nn.attention import attention
from fromnoise.nn.double import doubled
from fromnoise.nn.norm import GroupNorm
from fromnoise.nn.state import load_strictly

EPS = 1e-6  # of every group norm
LOG_VARIANCE = (-30.0, 20.0)  # what the encoder may say of a cell
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in files of 2022


class Posterior(NamedTuple):
    """What the encoder knows of a latent: each value is normal, by itself."""

    mean: Tensor  # (B, Z, h, w)
    std: Tensor  # (B, Z, h, w)


class ResnetBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, source: int, width: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(groups, source, EPS), GroupNorm(groups, width, EPS)
        self.conv1, self.conv2 = nn.Conv2d(source, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Identity() if source == width else nn.Conv2d(source, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, r, c) -> (B, D, r, c)."""
        hidden = self.conv1(F.silu(self.norm1(x)))  # (B, D, r, c)
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))  # (B, D, r, c)


class Attention(nn.Module):
    """Every place attends to all by one head, as a residual."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.group_norm = GroupNorm(groups, width, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, r, c) -> (B, D, r, c)."""
        places = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, r c, D)
        q, k, v = (f(places)[:, None] for f in (self.to_q, self.to_k, self.to_v))  # (B, 1, r c, D)
        mixed = self.to_out[0](attention(q, k, v, None).squeeze(1))  # (B, r c, D)
        return x + mixed.transpose(1, 2).unflatten(-1, x.shape[-2:])  # (B, D, r, c)


class MidBlock(nn.Module):
    """The lowest level."""

    def __init__(self, width: int, groups: int, attends: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width, groups) if attends else nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, r, c) -> (B, D, r, c)."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))  # (B, D, r, c)


class Downsample(nn.Module):
    """Half the side; a row and a column of zeros are added below and to the right only."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # (B, D, r / 2, c / 2)


class Upsample(nn.Module):
    """Twice the side: each place four times, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(doubled(x))  # (B, D, 2 r, 2 c)


class DownBlock(nn.Module):
    """A level of the encoder."""

    def __init__(self, source: int, width: int, layers: int, groups: int, last: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(source if i == 0 else width, width, groups) for i in range(layers))
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, r, c) -> (B, D, r / 2, c / 2), or as many places at the last level."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)  # (B, D, r, c), then (B, D, r / 2, c / 2)
        return x


class UpBlock(nn.Module):
    """A level of the decoder."""

    def __init__(self, source: int, width: int, layers: int, groups: int, last: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(source if i == 0 else width, width, groups) for i in range(layers))
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, r, c) -> (B, D, 2 r, 2 c), or as many places at the last level."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)  # (B, D, r, c), then (B, D, 2 r, 2 c)
        return x


class Encoder(nn.Module):
    """Pictures to moments."""

    def __init__(self, config: VAEConfig, widths: list[int]):
        super().__init__()
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(source, width, config.layers, config.groups, level == len(widths) - 1)
            for level, (source, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        )
        self.mid_block = MidBlock(widths[-1], config.groups, config.attention)
        self.conv_norm_out = GroupNorm(config.groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 Z, h, w)."""
        x = self.conv_in(x)  # (B, D, H, W)
        for block in self.down_blocks:
            x = block(x)  # (B, D, r, c)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))  # (B, 2 Z, h, w)


class Decoder(nn.Module):
    """Latents to pictures; `widths` are the encoder's, backwards."""

    def __init__(self, config: VAEConfig, widths: list[int]):
        super().__init__()
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], config.groups, config.attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(source, width, config.layers + 1, config.groups, level == len(widths) - 1)
            for level, (source, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        )
        self.conv_norm_out = GroupNorm(config.groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) -> (B, C, H, W)."""
        x = self.mid_block(self.conv_in(z))  # (B, D, h, w)
        for block in self.up_blocks:
            x = block(x)  # (B, D, r, c)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, C, H, W)


class VAE(nn.Module):
    """Pictures in [-1, 1] to latents, eight times smaller with the default config, and back.

    Weights start as torch's layers do, which is how the paper's authors began.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        for level, width in enumerate(widths):
            if width % config.groups:
                raise ValueError(f"VAE width {width}, at level {level}, is not a multiple of groups {config.groups}")
        self.config = config
        self.encoder, self.decoder = Encoder(config, widths), Decoder(config, widths[::-1])
        z = config.latent_channels
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1) if config.quant else nn.Identity()
        self.post_quant_conv = nn.Conv2d(z, z, 1) if config.post_quant else nn.Identity()

    def encode(self, images: Tensor) -> Posterior:
        """(B, C, H, W) in [-1, 1], H and W multiples of the factor -> mean and std, (B, Z, h, w) each."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, 1)  # (B, Z, h, w) each
        return Posterior(mean, (0.5 * log_variance.clamp(*LOG_VARIANCE)).exp())

    def decode(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) -> (B, C, H, W), in [-1, 1] but for overshoot."""
        return self.decoder(self.post_quant_conv(z))  # (B, C, H, W)

    def import_state(self, stock: dict[str, Tensor]) -> None:
        """Take the weights of diffusers' `AutoencoderKL`, also under the names that attention had in 2022.

        Raises ValueError where a key is missing, unknown or of another shape.
        """
        old = rf"\.attentions\.0\.({'|'.join(OLD_NAMES)})\."

        def renamed(key: str) -> str:
            return re.sub(old, lambda found: f".attentions.0.{OLD_NAMES[found[1]]}.", key)

        load_strictly(self, {renamed(key): value for key, value in stock.items()})

    def export_state(self) -> dict[str, Tensor]:
        """The weights under diffusers' names."""
        return {key: value.clone() for key, value in self.state_dict().items()}
