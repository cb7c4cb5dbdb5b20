"""DiT beside `DiTTransformer2DModel`. Legend: B batch, C channels, S side, K classes, D width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from benchmarks.stock.rival import Rival, Told
from fromnoise.conditioning.config import LabelConfig
from fromnoise.conditioning.label import LabelConditioner
from fromnoise.core.types import Cond
from fromnoise.models.config import DiTConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.generations import CLASSES, DIT


class DiT(Rival):
    """DiT of the recipes `dit` and `x0`; it reads a class, and no text."""

    stock: ClassVar[str] = "DiTTransformer2DModel"

    backbone: DiTConfig = DIT
    """fromnoise's network."""

    def fresh(self) -> DiTTransformer2DModel:
        b = self.backbone
        return DiTTransformer2DModel(
            sample_size=self.side,
            patch_size=b.patch,
            in_channels=self.channels,
            out_channels=self.channels,
            num_layers=b.depth,
            attention_head_dim=b.head_width,
            num_attention_heads=b.width // b.head_width,
            num_embeds_ada_norm=CLASSES.classes,
            norm_eps=1e-6,
        )

    def conditioner(self, rows: int) -> LabelConditioner:
        return LabelConditioner(LabelConfig(classes=CLASSES.classes, width=self.backbone.width))

    def take(self, pipeline: Pipeline, stock: Any) -> None:
        embedding, *others = (block.norm1.emb for block in stock.transformer_blocks)
        for other in others:  # one embedding of time and class serves all that were trained
            other.load_state_dict(embedding.state_dict())
        table = pipeline.backbone.import_state(stock.state_dict())
        pipeline.conditioner.load_state_dict({"table": table})

    def told(self, stock: Any, cond: Cond) -> Told:
        table = stock.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight  # (K + 1, D)
        return {"class_labels": torch.cdist(cond.vector.to(table.dtype).float(), table.float()).argmin(1)}  # (B,)

    def ask(self, stock: Callable[..., Any], x: Tensor, t: Tensor, told: Told) -> Tensor:
        return stock(hidden_states=x, timestep=1000 * t, return_dict=False, **told)[0]  # (B, C, S, S)
