"""Latent space: the backbone sees what a frozen autoencoder makes of pictures.

Legend: B batch, C channels of the picture, Z channels of the latent, S channels of what is stored (2 Z, or Z where the
encoder says no deviation), N latents, H and W rows and columns of the picture, f factor, h = H / f, w = W / f.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.files import file_hash, read_tensors
from fromnoise.core.types import Scaling
from fromnoise.models.config import FrozenVAEConfig
from fromnoise.space.folder import WEIGHTS, VAEFault, describe

PIXELS = 2**19  # that go through the VAE together: 8 pictures of 256 x 256, a few GiB at Stable Diffusion's size
SHOWN = 4  # channels whose numbers a user is shown
ALIKE = 1e-6  # a deviation below this is rounding


class LatentSpace(nn.Module):
    """Latents of the autoencoder in `folder`, less `shift`, times `scale`: z = (draw - shift) * scale, by channel.

    shift, scale: one number for each channel, or one for all. None is a number not known yet: such a space encodes and
    measures, and refuses all else by a ValueError. They stay on the CPU, where latents to learn are made: to read them
    of a GPU would be to wait until it has done all that it was told.

    The autoencoder is no part of what is trained: its weights are buffers that no checkpoint holds, so they have no
    gradient, no optimizer state and no average. A checkpoint holds their sha256 in their place (`state`).

    Raises:
        VAEFault: one line, when the folder holds none that can be read.
        ValueError: one line, when there are not as many numbers as channels, or a scale is not above 0.
    """

    def __init__(
        self,
        folder: Path,
        shift: Sequence[float] | None,
        scale: Sequence[float] | None,
        vae: Any = None,
    ):
        """vae: that of `folder`, one of fromnoise.models, where it has been built."""
        super().__init__()
        config = vae.config if vae else describe(folder).config
        self.vae: Any = frozen(vae or read_vae(folder, config))  # one of fromnoise.models
        self.factor, self.channels = config.factor, config.latent_channels
        self.std = config.stored_channels > config.latent_channels  # is stored beside the mean
        self.shift = None if shift is None else column("shift", shift, self.channels)  # (Z, 1, 1)
        self.scale = None if scale is None else column("scale", scale, self.channels)  # (Z, 1, 1)
        self.sha256 = "" if vae else sha256_of(folder)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: which weights these are, and what latents are moved and scaled by; ValueError, one
        line, where that is not known."""
        shift, scale = (numbers.flatten().tolist() for numbers in self._known())
        return {"sha256": self.sha256, "shift": shift, "scale": scale}

    @property
    def notice(self) -> str:
        """What a user is told of this space; ValueError as `state`."""
        count = sum(weight.numel() for weight in self.vae.buffers()) / 1e6
        told = dict.fromkeys(zip(self.state["shift"], self.state["scale"], strict=True))  # equal channels told once
        pairs = [f"(z - {shift:.4g}) * {scale:.5g}" for shift, scale in told]
        more = f", and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        moved = ", ".join(pairs[:SHOWN]) + more
        return f"latents of a frozen VAE of {count:.2f}M parameters, {self.factor} pixels a cell, {moved}"

    def latent_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Shape (Z, h, w) of the latent of one (C, H, W) picture.

        Raises:
            ValueError: one line, when the autoencoder takes pictures of another number of channels.
        """
        if channels != self.vae.config.channels:
            raise ValueError(
                f"pictures have {channels} channels; the VAE at model.space.path takes {self.vae.config.channels}"
            )
        return self.channels, height // self.factor, width // self.factor

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] to what is stored of them, (B, S, h, w): the mean, and the standard
        deviation where the encoder says one (`std`).

        Channels lie last in memory meanwhile: on a CPU an encoder's convolutions take a quarter less time so.
        """
        device, last = next(self.vae.buffers()).device, torch.channels_last
        parts = (part.to(device, memory_format=last) for part in self._parts(images, images.shape))
        stored = [torch.cat(self.vae.encode(part), 1) for part in parts]  # (., S, h, w) each
        return torch.cat(stored).to(images.device).contiguous()  # (B, S, h, w)

    def latent(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What is stored (B, S, h, w) to a latent (B, Z, h, w) for the backbone to learn: a fresh draw each time, where
        there is a deviation."""
        shift, scale = (numbers.to(stored.device) for numbers in self._known())  # (Z, 1, 1) each
        mean, *std = stored.split(self.channels, 1)  # (B, Z, h, w) each
        assert len(std) == self.std, f"{stored.shape[1]} channels are stored of {self.channels}"
        if std:
            noise = torch.randn(mean.shape, generator=generator).to(mean.device)  # the same wherever latents are
            mean = mean + std[0] * noise  # (B, Z, h, w)
        return (mean - shift) * scale  # (B, Z, h, w)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """A latent (B, Z, h, w), of any device, to pictures (B, C, H, W) in [-1, 1] where the VAE is; what lies outside
        is clipped.

        Channels lie last meanwhile: a decoder takes a tenth less time so.
        """
        z = z.to(next(self.vae.buffers()).device)  # (B, Z, h, w)
        shift, scale = (numbers.to(z.device) for numbers in self._known())  # (Z, 1, 1) each
        moved = (z / scale + shift).contiguous(memory_format=torch.channels_last)  # (B, Z, h, w)
        height, width = (self.factor * side for side in z.shape[-2:])
        pictures = torch.cat([self.vae.decode(part) for part in self._parts(moved, (height, width))])  # (B, C, H, W)
        return pictures.clamp(-1, 1).contiguous()  # (B, C, H, W)

    def measure(self, pictures: Iterable[Tensor]) -> Scaling:
        """Mean, and 1 / standard deviation, of the latents of batches of `pictures` (B, C, H, W), to five digits.

        Every picture counts alike. The variance of a channel is that between the means of the pictures, and the mean of
        those within them, which the encoder's own is a part of. (Rombach et al. 2022, appendix G, take one deviation
        for all channels, and no mean.)

        Raises:
            ValueError: one line: other channels than the autoencoder's, or latents that are all alike or no numbers.
        """
        means, variances = [], []  # (B, Z) each
        for batch in pictures:
            self.latent_shape(*batch.shape[1:])
            mean, *std = self.encode(batch).cpu().double().split(self.channels, 1)  # (B, Z, h, w) each
            means.append(mean.mean((2, 3)))
            variances.append(mean.var((2, 3), correction=0) + sum(one.square().mean((2, 3)) for one in std))
        between, within = torch.cat(means), torch.cat(variances).mean(0)  # (N, Z), (Z,)
        deviation = (between.var(0, correction=0) + within).sqrt()  # (Z,)
        for channel, value in enumerate(deviation.tolist()):
            if not ALIKE < value < math.inf:
                raise ValueError(
                    f"channel {channel} of the training pictures' latents has a standard deviation of {value:.3g}: "
                    f"give model.space.shift and model.space.scale, or other pictures"
                )
        return Scaling.of(between.mean(0).tolist(), deviation.tolist())

    def _known(self) -> tuple[Tensor, Tensor]:
        if self.shift is None or self.scale is None:
            raise ValueError(
                "model.space.shift and model.space.scale are not known: give them, or let a training measure them"
            )
        return self.shift, self.scale

    def _parts(self, x: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """x (B, ...) in parts that are pictures of `PIXELS` in all, or one, of a `shape` that ends in H and W."""
        return x.split(max(1, PIXELS // (shape[-2] * shape[-1])))


def read_vae(folder: Path, config: FrozenVAEConfig) -> nn.Module:
    """The autoencoder whose weights lie in `folder`, in float32.

    Raises:
        VAEFault: one line, when they cannot be read or are another architecture's.
    """
    with torch.device("meta"):  # no chance is spent on weights that are about to be read
        vae = config.build()
    vae.to_empty(device="cpu")
    try:
        vae.import_state(read_tensors(folder / WEIGHTS))
    except ValueError as error:
        raise VAEFault(f"{folder}: {error}") from None
    return vae.eval()


def frozen(module: nn.Module) -> nn.Module:
    """`module` with buffers that are never saved in place of its parameters."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=False)
    return module


def sha256_of(folder: Path) -> str:
    """sha256 (hex) of the file of weights in `folder`, as `sha256sum` has it."""
    return file_hash(folder / WEIGHTS)


def column(name: str, numbers: Sequence[float], channels: int) -> Tensor:
    """One number for each channel, or one for all, as (Z, 1, 1); ValueError, one line, where they are not that."""
    given = torch.tensor(numbers)
    if len(given) not in (1, channels) or (name == "scale" and bool((given <= 0).any())):
        allowed = f"1 or {channels} numbers" + (" above 0" if name == "scale" else "")
        raise ValueError(f"model.space.{name} is {tuple(given.tolist())}; allowed: {allowed}")
    return given.expand(channels).reshape(-1, 1, 1).clone()  # (Z, 1, 1)


def restored(
    folder: Path, shift: Sequence[float] | None, scale: Sequence[float] | None, state: dict[str, Any]
) -> LatentSpace:
    """The space that a checkpoint's `state` was taken from.

    Raises:
        VAEFault: one line, when the autoencoder in `folder` is another one.
        ValueError: one line, when `shift` or `scale` is given, and is not the state's.
    """
    space = LatentSpace(folder, state["shift"], state["scale"])
    if space.sha256 != state["sha256"]:
        trained, there = state["sha256"][:12], space.sha256[:12]
        raise VAEFault(f"{folder} holds another VAE (sha256 {there}...) than the model was trained with ({trained}...)")
    for name, given, kept in zip(("shift", "scale"), (shift, scale), space._known(), strict=True):
        if given is not None and not torch.equal(column(name, given, space.channels), kept):
            raise ValueError(f"model.space.{name} is {tuple(given)}, but the model was trained with {state[name]}")
    return space
