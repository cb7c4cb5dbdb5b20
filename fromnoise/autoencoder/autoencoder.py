"""A VAE in training: its loss in one stated convention, and the folder it leaves.

Legend: B batch, C channels of the picture, Z channels of the latent, H and W rows and columns of the picture, f factor,
h = H / f, w = W / f.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fromnoise.autoencoder.adversarial import Discriminator, adaptive_weight, fooled, hinge
from fromnoise.autoencoder.config import AutoencoderConfig
from fromnoise.autoencoder.fidelity import divergence
from fromnoise.autoencoder.perceptual import Perceptual
from fromnoise.core.compiler import compiled
from fromnoise.core.config import explain
from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.models.vae import VAE


class Judged(NamedTuple):
    """Reconstructions, and the terms of their loss."""

    made: Tensor  # (B, C, H, W)
    error: Tensor  # (B,) squared error, and LPIPS
    kl: Tensor  # (B,) times its weight


class Autoencoder(nn.Module):
    """A VAE with the loss it is trained by. Make one with `build` (fresh), or `load` (from a file that `save` wrote).

    The loss of a picture x with posterior N(m, s^2) and reconstruction y of a draw from it is

        1/(C H W) sum (x - y)^2  +  kl  1/(Z h w) sum 1/2 (m^2 + s^2 - 1 - ln s^2),

    a squared error per pixel value in [-1, 1], and a divergence in nats per latent value (Kingma and Welling 2014,
    appendix B): both are means, so that one weight `kl` means the same at every size. With sums in place of means the
    same loss is, but for a factor, that of a beta-VAE (Higgins et al. 2017), sum (x - y)^2 + beta sum KL, of

        beta = kl (C H W) / (Z h w) = kl C f^2 / Z,

    12 kl for 4 channels at 4x and 48 kl at 8x; as the likelihood of a Gaussian, its variance is beta / 2. (A mean error
    beside a *summed* divergence, as it is often written, hides a factor of Z h w: 1e-5 is then kl = .01 at 16 x 16 x 4,
    and beta = .49.) At the optimum a latent value that is used has noise that costs kl / (2 Z h w): all of them, kl / 2
    of squared error. So a `kl` well below the error itself leaves reconstructions as sharp as they can be.

    Two terms are added where they have a weight: LPIPS to the error (`perceptual`), and the judgement of a
    discriminator that is trained beside, by the same optimizer, from a step on (`adversarial`).
    """

    def __init__(self, config: AutoencoderConfig, perceptual: Perceptual | None):
        super().__init__()
        self.config = config
        self.vae = VAE(config.vae)
        self.perceptual = perceptual
        loss = config.loss
        self.discriminator: Discriminator | None = None
        if loss.adversarial:
            channels = config.vae.channels
            self.discriminator = Discriminator(channels, loss.discriminator_width, loss.discriminator_layers)

    @classmethod
    def build(cls, config: AutoencoderConfig, seed: int, perceptual: Perceptual | None = None) -> Autoencoder:
        """A fresh autoencoder on the CPU: weights from `seed`. perceptual: what the loss asks, where it does."""
        with torch.random.fork_rng(devices=[]):  # modules draw their weights from torch's default generator
            torch.manual_seed(seed)
            return cls(config, perceptual)

    @classmethod
    def load(cls, path: str | os.PathLike[str], perceptual: Perceptual | None = None) -> Autoencoder:
        """The autoencoder that `save` wrote to the file `path`, on the CPU. perceptual: only for who trains it on.

        Raises:
            ValueError: one line, when the file is missing, cut short, altered, or holds no autoencoder.
        """
        tensors, metadata = load_tensors(path)
        if "autoencoder" not in metadata:
            raise ValueError(f"{path} holds no autoencoder: its metadata has no such config")
        try:
            model = cls(AutoencoderConfig.model_validate_json(metadata["autoencoder"]), perceptual)
            model.load_state_dict(tensors)
        except ValidationError as error:
            raise ValueError(f"{path}: {explain(error)}") from None
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit this version: {' '.join(str(error).split())}") from None
        return model

    def save(self, path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
        """Write weights and config to the file `path` (safetensors, atomic), beside `metadata` of yours."""
        save_tensors(path, self.state_dict(), metadata | {"autoencoder": self.config.model_dump_json()})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def blocks(self) -> list[nn.Module]:
        """What is compiled, and shared out among processes, one by one: the VAE's levels."""
        encoder, decoder = self.vae.encoder, self.vae.decoder
        return [*encoder.down_blocks, encoder.mid_block, decoder.mid_block, *decoder.up_blocks]

    def compiled(self, wanted: bool = True) -> AbstractContextManager[None]:
        """Inside, the VAE's levels run compiled, if that is `wanted`; see `core.compiler.compiled`."""
        return compiled(self.blocks()) if wanted else nullcontext()

    def loss(self, images: Tensor, eps: Tensor, step: int) -> Tensor:
        """The loss of each picture, (B,), as the class has it; that of the discriminator is part of it.

        images: (B, C, H, W) in [-1, 1]. eps: (B, Z, h, w) standard normal, of which the posterior's draw is made.
        step: of the optimizer, which tells whether the discriminator has begun. It is left out where no gradients are
        computed, of which its weight is made.
        """
        made, error, kl = self.judged(images, eps)
        begun = step >= self.config.loss.adversarial_start and torch.is_grad_enabled()
        if self.discriminator is None or not begun:
            return error + kl  # (B,)
        against = fooled(self.discriminator, made)  # (B,)
        weight = adaptive_weight(error.mean(), against.mean(), self.vae.decoder.conv_out.weight)  # ()
        against = self.config.loss.adversarial * weight * against  # (B,)
        return error + kl + against + hinge(self.discriminator(images), self.discriminator(made.detach()))  # (B,)

    def judged(self, images: Tensor, eps: Tensor) -> Judged:
        """The reconstructions and what is wrong with them, less what a discriminator says; arguments as of `loss`."""
        posterior, weights = self.vae.encode(images), self.config.loss
        made = self.vae.decode(posterior.mean + posterior.std * eps).float()  # (B, C, H, W)
        error = (made - images).square().mean((1, 2, 3))  # (B,)
        if self.perceptual is not None:
            error = error + weights.perceptual * self.perceptual(made, images)  # (B,)
        return Judged(made, error, weights.kl * divergence(posterior).mean((1, 2, 3)))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (Z, h, w) of the latent of a picture of `height` x `width` pixels."""
        factor = self.config.vae.factor
        return self.config.vae.latent_channels, height // factor, width // factor
