"""Latent space: the backbone sees what a frozen VAE makes of pictures.

Legend: B batch, C channels of the picture, Z channels of the latent, H and W rows and columns of the picture, f factor,
h = H / f, w = W / f.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.files import read_tensors
from fromnoise.models.config import VAEConfig
from fromnoise.models.vae import VAE
from fromnoise.space.folder import WEIGHTS, VAEFault, describe

PIXELS = 2**19  # that go through the VAE together: 8 pictures of 256 x 256, a few GiB at Stable Diffusion's size


class LatentSpace(nn.Module):
    """Latents of the VAE in `folder`, less `shift`, times `scale`: z = (draw - shift) * scale, channel by channel.

    shift, scale: one number for each channel, or one for all; None takes those published with the VAE.

    The VAE is no part of what is trained: its weights are buffers that no checkpoint holds, so they have no gradient,
    no optimizer state and no average. A checkpoint holds their sha256 in their place (`state`).

    Raises:
        VAEFault: one line, when the folder holds no VAE that can be read.
        ValueError: one line, when there are not as many numbers as channels, or a scale is not above 0.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, folder: Path, shift: Sequence[float] | None, scale: Sequence[float] | None):
        super().__init__()
        described = describe(folder)
        self.vae = frozen(read_vae(folder, described.config))
        self.factor = described.config.factor
        for name, given, published in (("shift", shift, described.shift), ("scale", scale, described.scale)):
            numbers = torch.tensor(published if given is None else given)
            channels = described.config.latent_channels
            if len(numbers) not in (1, channels) or (name == "scale" and bool((numbers <= 0).any())):
                allowed = f"1 or {channels} numbers" + (" above 0" if name == "scale" else "")
                raise ValueError(f"model.space.{name} is {tuple(numbers.tolist())}; allowed: {allowed}")
            self.register_buffer(
                name, numbers.expand(channels).reshape(-1, 1, 1).clone(), persistent=False
            )  # (Z, 1, 1)
        self.sha256 = sha256_of(folder)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: which weights these are, and what latents are moved and scaled by."""
        return {"sha256": self.sha256, "shift": self.shift.flatten().tolist(), "scale": self.scale.flatten().tolist()}

    @property
    def notice(self) -> str:
        """What a user is told of this space."""
        count = sum(weight.numel() for weight in self.vae.buffers()) / 1e6
        pairs = dict.fromkeys(zip(self.state["shift"], self.state["scale"], strict=True))  # equal channels told once
        moved = ", ".join(f"(z - {shift:.4g}) * {scale:.5g}" for shift, scale in pairs)
        return f"latents of a frozen VAE of {count:.2f}M parameters, {self.factor} pixels a cell, {moved}"

    def latent_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Shape (Z, h, w) of the latent of one (C, H, W) picture.

        Raises:
            ValueError: one line, when the VAE takes pictures of another number of channels.
        """
        if channels != self.vae.config.channels:
            raise ValueError(
                f"pictures have {channels} channels; the VAE at model.space.path takes {self.vae.config.channels}"
            )
        return self.vae.config.latent_channels, height // self.factor, width // self.factor

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] to what is stored of them, (B, 2 Z, h, w): mean and standard deviation."""
        parts = (part.to(self.shift.device) for part in self._parts(images, images.shape))
        stored = [torch.cat(self.vae.encode(part), 1) for part in parts]  # (., 2 Z, h, w) each
        return torch.cat(stored).to(images.device)  # (B, 2 Z, h, w)

    def latent(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What is stored (B, 2 Z, h, w) to a latent (B, Z, h, w) for the backbone to learn: a fresh draw each time."""
        mean, std = stored.chunk(2, 1)  # (B, Z, h, w) each
        drawn = mean + std * torch.randn(mean.shape, generator=generator)  # (B, Z, h, w)
        return (drawn - self.shift.to(drawn.device)) * self.scale.to(drawn.device)  # (B, Z, h, w)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """A latent (B, Z, h, w) to pictures (B, C, H, W) in [-1, 1]; what lies outside is clipped."""
        moved = z / self.scale + self.shift  # (B, Z, h, w)
        height, width = (self.factor * side for side in z.shape[-2:])
        pictures = torch.cat([self.vae.decode(part) for part in self._parts(moved, (height, width))])  # (B, C, H, W)
        return pictures.clamp(-1, 1)  # (B, C, H, W)

    def _parts(self, x: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """x (B, ...) in parts that are pictures of `PIXELS` in all, or one, of a `shape` that ends in H and W."""
        return x.split(max(1, PIXELS // (shape[-2] * shape[-1])))


def read_vae(folder: Path, config: VAEConfig) -> VAE:
    """The VAE whose weights lie in `folder`, in float32.

    Raises:
        VAEFault: one line, when they cannot be read or are another architecture's.
    """
    with torch.device("meta"):  # no chance is spent on weights that are about to be read
        vae = VAE(config)
    vae.to_empty(device="cpu")
    try:
        vae.import_state(read_tensors(folder / WEIGHTS))
    except ValueError as error:
        raise VAEFault(f"{folder}: {error}") from None
    return vae.eval()


def frozen(module: VAE) -> VAE:
    """`module` with buffers that are never saved in place of its parameters."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=False)
    return module


def sha256_of(folder: Path) -> str:
    """sha256 (hex) of the file of weights in `folder`, as `sha256sum` has it."""
    with open(folder / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restored(folder: Path, state: dict[str, Any]) -> LatentSpace:
    """The space that a checkpoint's `state` was taken from.

    Raises:
        VAEFault: one line, when the VAE in `folder` is another one.
    """
    space = LatentSpace(folder, state["shift"], state["scale"])
    if space.sha256 != state["sha256"]:
        trained, there = state["sha256"][:12], space.sha256[:12]
        raise VAEFault(f"{folder} holds another VAE (sha256 {there}...) than the model was trained with ({trained}...)")
    return space
