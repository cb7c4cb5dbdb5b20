"""A backbone that diffusers has no class for, kept as diffusers keeps a model."""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig as Settings  # what these two mean is given when a folder is written
from fromnoise.models.mmdit import MMDiT as Network


class Backbone(ModelMixin, ConfigMixin):
    """fromnoise's own network; `settings` are its config's."""

    @register_to_config
    def __init__(self, settings: dict, channels: int, cond_width: int):
        super().__init__()
        self.network = Network(Settings(**settings), channels, cond_width)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor, vector: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], tokens (B, L, D), mask (B, L), vector (B, D) -> like x."""
        return self.network(x, t, Cond(tokens, mask, vector))  # (B, C, H, W)
