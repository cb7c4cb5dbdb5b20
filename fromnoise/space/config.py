"""The spaces by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fromnoise.core.config import Config
from fromnoise.core.files import elsewhere
from fromnoise.space.folder import CONFIG, describe, disagreement

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fromnoise.space.latent import LatentSpace
    from fromnoise.space.pixel import PixelSpace


class SpaceConfig(Config, ABC):
    """What the backbone sees of a picture."""

    type: str

    @abstractmethod
    def check(self) -> None:
        """Find that all that it needs is there, before anything slow is done; ValueError, one line, where it is not."""

    def moved(self, run: Path) -> SpaceConfig:
        """This, with what is gone from its path read where the directory `run`, of its own run, leads (`elsewhere`)."""
        return self

    @abstractmethod
    def measured(self, pictures: Iterable[Tensor], device: torch.device, say: Callable[[str], None]) -> SpaceConfig:
        """This with what is left out measured on batches of training `pictures` (B, C, H, W) in [-1, 1], and told.

        Nothing is read of `pictures` where nothing is left out.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """The space, for a fresh model."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> nn.Module:
        """The space that a checkpoint's `state` was taken from."""


class PixelConfig(SpaceConfig):
    """Pixels in [-1, 1], shifted."""

    type: Literal["pixel"] = "pixel"
    shift: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """What is taken from every value: that of the commonest colour makes it 0, which a model draws from the first step
    on."""

    def check(self) -> None:
        """Nothing can be missing."""

    def measured(self, pictures: Iterable[Tensor], device: torch.device, say: Callable[[str], None]) -> PixelConfig:
        """This: nothing is left out."""
        return self

    def build(self) -> PixelSpace:
        from fromnoise.space.pixel import PixelSpace

        return PixelSpace(self.shift)

    def restore(self, state: dict[str, Any]) -> PixelSpace:
        """As `build`: a checkpoint has nothing to add."""
        return self.build()


class LatentConfig(SpaceConfig):
    """Latents of a frozen VAE, shifted and scaled: z = (draw - shift) * scale."""

    type: Literal["latent"] = "latent"
    path: Path
    """Folder of the VAE as diffusers saves it (AutoencoderKL or AutoencoderTiny): config.json and
    diffusion_pytorch_model.safetensors."""
    shift: tuple[float, ...] | None = None
    """Mean of the latents, for each channel or for all; left out, measured when a training begins."""
    scale: tuple[float, ...] | None = None
    """1 / their standard deviation, for each channel or for all; left out, measured when a training begins."""

    def check(self) -> None:
        """Find that there is a VAE, without reading its weights; VAEFault, one line, where there is none."""
        describe(self.path)

    def moved(self, run: Path) -> LatentConfig:
        """This, with a VAE found in `run`, or from above it, where there is none at `path`."""
        place = elsewhere(self.path, run)
        return self.model_copy(update={"path": place}) if place else self

    def measured(self, pictures: Iterable[Tensor], device: torch.device, say: Callable[[str], None]) -> LatentConfig:
        """This with shift and scale measured where left out, and told; errors as in `LatentSpace.measure`."""
        if self.shift is not None and self.scale is not None:
            return self
        return self.filled(*self.build().to(device).measure(pictures), say)

    def filled(self, shift: tuple[float, ...], scale: tuple[float, ...], say: Callable[[str], None]) -> LatentConfig:
        """This with measured numbers, one of each for each channel, where left out; told, beside what the VAE's
        config.json publishes where that is more than a tenth off."""
        found = {"shift": shift, "scale": scale}
        left_out = [name for name in found if getattr(self, name) is None]
        say(f"measured on training pictures: {' and '.join(f'model.space.{name}' for name in left_out)}")
        if told := disagreement(describe(self.path), shift, scale):
            say(f"{self.path / CONFIG} says otherwise: {told}")
        return self.model_copy(update={name: found[name] for name in left_out})

    def build(self) -> LatentSpace:
        """The space, for a fresh model."""
        from fromnoise.space.latent import LatentSpace

        return LatentSpace(self.path, self.shift, self.scale)

    def restore(self, state: dict[str, Any]) -> LatentSpace:
        """The space that a checkpoint's `state` was taken from; VAEFault, one line, where the VAE is another one,
        ValueError where shift or scale is."""
        from fromnoise.space.latent import restored

        return restored(self.path, self.shift, self.scale, state)


SPACES: list[type[SpaceConfig]] = [PixelConfig, LatentConfig]
