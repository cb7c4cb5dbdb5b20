"""What a checkpoint of an autoencoder must know: one frozen tree. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from fromnoise.core.config import Config
from fromnoise.models.config import VAEConfig


class Loss(Config):
    """What an autoencoder is trained to make small: the squared error of a pixel value, and what is added to it."""

    kl: NonNegativeFloat = 1e-3
    """Weight of the divergence, in nats a latent value; the noise that it pays for costs about half of it in squared
    error."""
    perceptual: NonNegativeFloat = 0.0
    """Weight of LPIPS; 0 leaves it out."""
    vgg: Path | None = None
    """Safetensors of VGG16's convolutions under torchvision's names (features.0.weight, ...), for the perceptual
    loss."""
    heads: Path | None = None
    """Safetensors of the heads of LPIPS 0.1 for VGG (lin0.model.1.weight, ...), for the perceptual loss."""
    adversarial: NonNegativeFloat = 0.0
    """Weight of the adversarial loss, times the adaptive one; 0 leaves it out."""
    adversarial_start: NonNegativeInt = 2000
    """Steps before the discriminator begins."""
    discriminator_width: PositiveInt = 64
    """Channels of the discriminator's first layer; a multiple of 8."""
    discriminator_layers: PositiveInt = 3
    """Its layers that halve the side; 3 judge patches of 70 pixels."""

    @model_validator(mode="after")
    def _complete(self) -> Loss:
        if self.perceptual and not (self.vgg and self.heads):
            lacking = "vgg" if not self.vgg else "heads"
            raise ValueError(f"perceptual is {self.perceptual:g}, which needs a file of weights at {lacking}")
        if self.discriminator_width % 8:
            raise ValueError(f"discriminator_width is {self.discriminator_width}; allowed: multiples of 8")
        return self


class AutoencoderConfig(Config):
    """A VAE and its loss."""

    vae: VAEConfig = VAEConfig(width=64, layers=1)
    loss: Loss = Loss()
