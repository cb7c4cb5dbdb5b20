"""The backbones by name, one row each, and the autoencoders. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from torch import nn

    from fromnoise.models.cnn import CNN
    from fromnoise.models.crossdit import CrossDiT
    from fromnoise.models.dit import DiT
    from fromnoise.models.mmdit import MMDiT
    from fromnoise.models.tiny import TinyAutoencoder
    from fromnoise.models.unet import UNet
    from fromnoise.models.vae import VAE


class BackboneConfig(Config, ABC):
    """A network, (x_t, t, condition) -> what the target asks for."""

    type: str

    @abstractmethod
    def build(self, channels: int, cond_width: int) -> nn.Module:
        """The module for pictures of `channels` channels and a condition `cond_width` wide."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Sides of a picture are multiples of this."""

    def stretched(self, ratio: float) -> BackboneConfig:
        """The same network for pictures whose sides are `ratio` times as long; most take any size as they are."""
        return self


TABLES = ("learned",)  # absolute places with a parameter for each, of which there are as many as were trained


class MMDiTConfig(BackboneConfig):
    """Dual-stream multimodal diffusion transformer (SD3, Qwen-Image)."""

    type: Literal["mmdit"] = "mmdit"
    patch: PositiveInt = 4
    """Side of a square patch, in pixels (or latent cells)."""
    width: PositiveInt = 192
    """Width of both streams; a multiple of `head_width`."""
    depth: PositiveInt = 6
    """Number of dual-stream blocks."""
    head_width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Width of one attention head; half rotates with the height, half with the width."""
    pooled: bool = False
    """Add the condition's pooled vector to the time's embedding, as SD3 does."""
    modulation: Literal["own", "shared"] = "own"
    """What makes shifts, scales and gates of the time: a layer of each block's own (SD3 and Qwen), or one for all and
    a bias of each block's own (PixArt): a quarter to a third of the parameters less."""
    rotation: Literal["none", "rope", "scaling", "msrope"] = "msrope"
    """How queries and keys turn with their place: not, as a grid from its corner, squeezed to the grid trained on,
    or by Qwen-Image's MSRoPE."""
    absolute: Literal["none", "sincos", "cropped", "learned"] = "none"
    """What is added to a patch for its place: nothing, sines and cosines, those of the middle of a large grid (SD3),
    or a learned vector."""
    grid: PositiveInt = 8
    """Patches along a side at the size trained on; read by scaling, cropped and learned places."""
    largest: PositiveInt = 192
    """Most patches along a side, for cropped places (SD3: 192)."""
    text_norm: bool = True
    """Norm the text's tokens first (SD3 does not)."""
    rope_theta: Annotated[float, Field(gt=1)] = 10000.0
    """Base of the rotary frequencies: the slowest pair turns by about 1 / theta a position (Qwen-Image: 10000)."""

    def build(self, channels: int, cond_width: int) -> MMDiT:
        """The module for pictures of `channels` channels and condition tokens `cond_width` wide."""
        from fromnoise.models.mmdit import MMDiT

        return MMDiT(self, channels, cond_width)

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of this."""
        return self.patch

    def stretched(self, ratio: float) -> MMDiTConfig:
        """The same network for pictures whose sides are `ratio` times as long: with as many more learned places. Other
        places are measured in patches, or by the grid that was first trained on, and reach as far as is asked."""
        if self.absolute not in TABLES:
            return self
        return self.model_copy(update={"grid": max(1, round(self.grid * ratio))})


class UNetConfig(BackboneConfig):
    """Text-conditioned U-Net (SD1)."""

    type: Literal["unet"] = "unet"
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Channels of a level whose multiplier is 1; a multiple of `groups` and of `heads` (SD1: 320)."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4)
    """Channels of each level over `width`; from a level to the next a side halves (SD1: 1 2 4 4)."""
    layers: PositiveInt = 2
    """ResNet blocks of a level on the way down; one more on the way up."""
    attention: tuple[NonNegativeInt, ...] = (1, 2)
    """Levels that attend to themselves and to the text, 0 being the first; the middle always does (SD1: 0 1 2)."""
    heads: PositiveInt = 4
    """Attention heads, the same number at every level (SD1: 8)."""
    groups: PositiveInt = 32
    """Groups of channels that are normalised together (SD1: 32)."""

    def build(self, channels: int, cond_width: int) -> UNet:
        """The module for pictures of `channels` channels and condition tokens `cond_width` wide."""
        from fromnoise.models.unet import UNet

        return UNet(self, channels, cond_width)

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of this."""
        return 2 ** (len(self.multipliers) - 1)


class CNNConfig(BackboneConfig):
    """Small plain U-Net without attention: a first course's network for MNIST."""

    type: Literal["cnn"] = "cnn"
    width: Annotated[int, Field(ge=16, multiple_of=8)] = 48
    """Channels at full size; twice as many at half of it, four times at a quarter."""

    def build(self, channels: int, cond_width: int) -> CNN:
        """The module for pictures of `channels` channels and a condition vector `cond_width` wide."""
        from fromnoise.models.cnn import CNN

        return CNN(self, channels, cond_width)

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of this."""
        return 4


class DiTConfig(BackboneConfig):
    """Diffusion transformer: the condition is one vector, added to the time (DiT)."""

    type: Literal["dit"] = "dit"
    patch: PositiveInt = 4
    """Side of a square patch, in pixels (or latent cells)."""
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 192
    """Width of the tokens; a multiple of `head_width`."""
    depth: PositiveInt = 6
    """Number of blocks."""
    head_width: PositiveInt = 64
    """Width of one attention head."""

    def build(self, channels: int, cond_width: int) -> DiT:
        """The module for pictures of `channels` channels and a condition vector `cond_width` wide."""
        from fromnoise.models.dit import DiT

        return DiT(self, channels, cond_width)

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of this."""
        return self.patch


class CrossDiTConfig(BackboneConfig):
    """Diffusion transformer that reads text by cross-attention (PixArt-alpha)."""

    type: Literal["crossdit"] = "crossdit"
    patch: PositiveInt = 4
    """Side of a square patch, in pixels (or latent cells)."""
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 192
    """Width of the tokens; a multiple of `head_width`."""
    depth: PositiveInt = 6
    """Number of blocks."""
    head_width: PositiveInt = 64
    """Width of one attention head."""

    def build(self, channels: int, cond_width: int) -> CrossDiT:
        """The module for pictures of `channels` channels and condition tokens `cond_width` wide."""
        from fromnoise.models.crossdit import CrossDiT

        return CrossDiT(self, channels, cond_width)

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of this."""
        return self.patch


class VAEConfig(Config):
    """Variational autoencoder: pictures to latents and back (Stable Diffusion's; the defaults are its sizes)."""

    channels: PositiveInt = 3
    """Channels of a picture."""
    latent_channels: PositiveInt = 4
    """Channels of a latent."""
    width: PositiveInt = 128
    """Channels of a level whose multiplier is 1; a multiple of `groups`."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4, 4)
    """Channels of each level over `width`; from a level to the next a side halves."""
    layers: PositiveInt = 2
    """ResNet blocks of a level of the encoder; the decoder has one more."""
    groups: PositiveInt = 32
    """Groups of channels that are normalised together."""
    attention: bool = True
    """Let every place of the lowest level attend to all."""
    quant: bool = True
    """Mix the moments' channels once more behind the encoder (FLUX does not)."""
    post_quant: bool = True
    """Mix the latent's channels once more before the decoder (FLUX does not)."""

    def build(self) -> VAE:
        """The module, with fresh weights."""
        from fromnoise.models.vae import VAE

        return VAE(self)

    @property
    def factor(self) -> int:
        """Pixels along the side of a latent cell."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def stored_channels(self) -> int:
        """Channels of what the encoder says: a mean and a standard deviation of each of the latent's."""
        return 2 * self.latent_channels


class TinyConfig(Config):
    """Tiny autoencoder: a large VAE's latents, without a variance (TAESD; the defaults are its sizes)."""

    channels: PositiveInt = 3
    """Channels of a picture."""
    latent_channels: PositiveInt = 4
    """Channels of a latent."""
    width: PositiveInt = 64
    """Channels of every level."""
    encoder_layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (1, 3, 3, 3)
    """Blocks of each level of the encoder; from a level to the next a side halves."""
    decoder_layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (3, 3, 3, 1)
    """Blocks of each level of the decoder, as many levels, the lowest first."""
    midblock_norm: bool = False
    """Tell the blocks of the lowest level of the whole picture, by group norms (TAEF2)."""

    @model_validator(mode="after")
    def _as_many_levels(self) -> TinyConfig:
        down, up = len(self.encoder_layers), len(self.decoder_layers)
        if down != up:
            raise ValueError(f"the decoder has {up} levels; allowed: as many as the encoder, {down}")
        return self

    def build(self) -> TinyAutoencoder:
        """The module, with fresh weights."""
        from fromnoise.models.tiny import TinyAutoencoder

        return TinyAutoencoder(self)

    @property
    def factor(self) -> int:
        """Pixels along the side of a latent cell."""
        return 2 ** (len(self.encoder_layers) - 1)

    @property
    def stored_channels(self) -> int:
        """Channels of what the encoder says: the latent itself."""
        return self.latent_channels


FrozenVAEConfig = VAEConfig | TinyConfig
"""Each builds a module with `encode`, `decode` and `import_state`."""

BACKBONES: list[type[BackboneConfig]] = [MMDiTConfig, DiTConfig, CrossDiTConfig, UNetConfig, CNNConfig]
