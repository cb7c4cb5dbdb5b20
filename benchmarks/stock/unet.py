"""U-Net beside `UNet2DConditionModel`. Legend: B batch, C channels, S side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from benchmarks.given import Given
from benchmarks.stock.rival import Rival, Told
from fromnoise.core.types import Cond
from fromnoise.models.config import UNetConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.generations import UNET


class UNet(Rival):
    """U-Net of the recipes `ddpm`, `sd1` and `sd2`; all of its text is read, as Stable Diffusion reads padding, too."""

    stock: ClassVar[str] = "UNet2DConditionModel"
    layouts: ClassVar[Sequence[bool]] = (False, True)

    backbone: UNetConfig = UNET
    """fromnoise's network."""

    def fresh(self) -> UNet2DConditionModel:
        b = self.backbone
        attends = [level in b.attention for level in range(len(b.multipliers))]
        return UNet2DConditionModel(
            in_channels=self.channels,
            out_channels=self.channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
            block_out_channels=tuple(b.width * multiplier for multiplier in b.multipliers),
            layers_per_block=b.layers,
            attention_head_dim=b.heads,
            norm_num_groups=b.groups,
            cross_attention_dim=self.text_width,
        )

    def conditioner(self, rows: int) -> Given:
        return Given(rows, self.text, self.text_width, padded=False)

    def take(self, pipeline: Pipeline, stock: nn.Module) -> None:
        pipeline.backbone.import_state(stock.state_dict())

    def compiled_parts(self, stock: Any) -> list[nn.Module]:
        return [module for module in stock.modules() if isinstance(module, BasicTransformerBlock)]

    def told(self, stock: nn.Module, cond: Cond) -> Told:
        return {"encoder_hidden_states": cond.tokens}

    def ask(self, stock: Callable[..., Any], x: Tensor, t: Tensor, told: Told) -> Tensor:
        return stock(x, timestep=1000 * t, return_dict=False, **told)[0]  # (B, C, S, S)
