"""VAEs: the spaces that latent diffusion draws in."""

from __future__ import annotations

from pathlib import Path

from fromnoise.autoencoder.config import AutoencoderConfig, Loss
from fromnoise.data.config import CIFAR10Config, FolderConfig
from fromnoise.models.config import VAEConfig
from fromnoise.training.run import Muon, TrainingBase, VAERun


def vae(path: str | Path = "your-pictures") -> VAERun:
    """A VAE of 15.5M parameters for pictures of 128 pixels and more: 8 pixels a cell, 4 channels.

    `path` is a directory of pictures, as for the recipe `folder`; from the command line it is --data.path.

    Hardware: a GPU.
    Expect:   not measured at full length.
    Command:  fromnoise train vae --data.path DIR --directory runs/vae
    """
    model = AutoencoderConfig(vae=VAEConfig(width=64, multipliers=(1, 2, 4, 4), layers=1), loss=Loss(kl=1e-3))
    training = TrainingBase(steps=20_000, batch=16, optimizer=Muon(lr=1e-3, adamw_lr=5e-4), warmup=200, decay=0.7)
    return VAERun(recipe="vae", data=FolderConfig(path=Path(path), size=128), model=model, training=training)


def vae_small() -> VAERun:
    """A VAE of .96M parameters for photographs of 32 pixels, CIFAR-10's: 4 pixels a cell, 8 channels.

    With 4 channels, Stable Diffusion's number, so little is left of so small a picture that a classifier recognises 54 %
    of the reconstructions; with 8 it is 74 %, of the photographs themselves 91 %: docs/vae.md.

    Hardware: two CPU cores; 9 minutes 35 seconds beside other work.
    Expect:   reconstructions of held-out photographs at 29.7 dB.
    Command:  fromnoise train vae-small --directory runs/vae-small
    """
    model = AutoencoderConfig(
        vae=VAEConfig(latent_channels=8, width=32, multipliers=(1, 2, 2), layers=1), loss=Loss(kl=1e-3)
    )
    training = TrainingBase(steps=4000, batch=32, optimizer=Muon(lr=3e-3, adamw_lr=1e-3), warmup=100, decay=0.7)
    return VAERun(recipe="vae-small", data=CIFAR10Config(), model=model, training=training)
