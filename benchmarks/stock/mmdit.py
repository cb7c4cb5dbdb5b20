"""MMDiT beside `QwenImageTransformer2DModel`. Legend: B batch, C channels, S side, p patch side, h w patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from benchmarks.given import Given
from benchmarks.stock.rival import Rival, Told
from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.nn.patch import pack, unpack
from fromnoise.pipeline.pipeline import Pipeline


class QwenImage(Rival):
    """MMDiT as Qwen-Image has it, on coloured pictures; padding of its text is masked."""

    stock: ClassVar[str] = "QwenImageTransformer2DModel"
    targets: ClassVar = {"training": 2.0, "sampling": 3.0}

    backbone: MMDiTConfig = MMDiTConfig(width=192, depth=6, head_width=64, patch=4)
    """fromnoise's network."""
    side: int = 32
    """Side of a picture, in pixels."""
    channels: int = 3
    """Channels of a picture."""
    text: int = 16
    """Text tokens; how many of them are real differs from picture to picture."""
    text_width: int = 192
    """Width of a text token."""

    def fresh(self) -> QwenImageTransformer2DModel:
        b = self.backbone
        return QwenImageTransformer2DModel(
            patch_size=b.patch,
            in_channels=self.channels * b.patch**2,
            out_channels=self.channels,
            num_layers=b.depth,
            attention_head_dim=b.head_width,
            num_attention_heads=b.width // b.head_width,
            joint_attention_dim=self.text_width,
            axes_dims_rope=(0, b.head_width // 2, b.head_width // 2),
        )

    def conditioner(self, rows: int) -> Given:
        return Given(rows, self.text, self.text_width, padded=True)

    def take(self, pipeline: Pipeline, stock: nn.Module) -> None:
        pipeline.backbone.import_state(stock.state_dict())

    def told(self, stock: nn.Module, cond: Cond) -> Told:
        mask = None if bool(cond.mask.all()) else cond.mask
        return {"encoder_hidden_states": cond.tokens, "encoder_hidden_states_mask": mask}

    def ask(self, stock: Callable[..., Any], x: Tensor, t: Tensor, told: Told) -> Tensor:
        p = self.backbone.patch
        h, w = x.shape[-2] // p, x.shape[-1] // p
        shapes = [[(1, h, w)]] * len(x)
        tokens = stock(hidden_states=pack(x, p), timestep=t, img_shapes=shapes, return_dict=False, **told)[0]
        return unpack(tokens, h, w, p)  # (B, C, S, S)
