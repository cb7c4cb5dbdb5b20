"""MMDiT with SD3's weights beside `SD3Transformer2DModel`. Legend: B batch, C channels, S side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from benchmarks.given import Given
from benchmarks.stock.rival import Rival, Told
from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.models.sd3 import import_sd3
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.generations import MMDIT


class SD3(Rival):
    """MMDiT as SD3 has it, of the recipe `sd3`; its text has no padding, as the stock class knows no mask."""

    stock: ClassVar[str] = "SD3Transformer2DModel"

    backbone: MMDiTConfig = MMDIT
    """fromnoise's network."""

    def fresh(self) -> SD3Transformer2DModel:
        b = self.backbone
        return SD3Transformer2DModel(
            sample_size=b.grid * b.patch,
            patch_size=b.patch,
            in_channels=self.channels,
            out_channels=self.channels,
            num_layers=b.depth,
            attention_head_dim=b.head_width,
            num_attention_heads=b.width // b.head_width,
            joint_attention_dim=self.text_width,
            caption_projection_dim=b.width,
            pooled_projection_dim=self.text_width,
            pos_embed_max_size=b.largest,
            qk_norm="rms_norm",
        )

    def conditioner(self, rows: int) -> Given:
        return Given(rows, self.text, self.text_width, padded=False)

    def take(self, pipeline: Pipeline, stock: nn.Module) -> None:
        import_sd3(pipeline.backbone, stock.state_dict())

    def told(self, stock: nn.Module, cond: Cond) -> Told:
        return {"encoder_hidden_states": cond.tokens, "pooled_projections": cond.vector}

    def ask(self, stock: Callable[..., Any], x: Tensor, t: Tensor, told: Told) -> Tensor:
        return stock(hidden_states=x, timestep=1000 * t, return_dict=False, **told)[0]  # (B, C, S, S)
