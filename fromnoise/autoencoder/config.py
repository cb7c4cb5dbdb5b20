"""What a checkpoint of an autoencoder must know: one frozen tree. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from pydantic import NonNegativeFloat

from fromnoise.core.config import Config
from fromnoise.models.config import VAEConfig


class Loss(Config):
    """What an autoencoder is trained to make small: the squared error of a pixel value, and what is added to it."""

    kl: NonNegativeFloat = 1e-3
    """Weight of the divergence, in nats a latent value; the noise that it pays for costs about half of it in squared
    error."""


class AutoencoderConfig(Config):
    """A VAE and its loss."""

    vae: VAEConfig = VAEConfig(width=64, layers=1)
    loss: Loss = Loss()
