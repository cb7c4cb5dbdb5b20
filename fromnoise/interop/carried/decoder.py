"""An autoencoder that diffusers has no class for, kept as diffusers keeps a model."""

from __future__ import annotations

from types import SimpleNamespace

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from fromnoise.models.config import TinyConfig
from fromnoise.models.tiny import TinyAutoencoder


class Autoencoder(ModelMixin, ConfigMixin):
    """fromnoise's own tiny autoencoder; `settings` are its config's."""

    @register_to_config
    def __init__(self, settings: dict):
        super().__init__()
        self.network = TinyAutoencoder(TinyConfig(**settings))

    def decode(self, z: Tensor) -> SimpleNamespace:
        """(B, Z, h, w) -> pictures as `sample`, (B, C, H, W) in [-1, 1] but for overshoot."""
        return SimpleNamespace(sample=self.network.decode(z))
