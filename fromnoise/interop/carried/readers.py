"""Conditioners as diffusers keeps a model: what is trained of them, under fromnoise's names.

Legend: B batch, L tokens, D width, K classes, W_i width of what encoder i says.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from fromnoise.conditioning.text import Layer, understood
from fromnoise.core.types import Cond


class TextReader(ModelMixin, ConfigMixin):
    """The text encoder that was trained along: a bidirectional transformer on the tokenizer's ids."""

    @register_to_config
    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, most: int, length: int):
        super().__init__()
        self.most, self.length = most, length
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.zeros(most, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.nothing = nn.Parameter(torch.zeros(width))

    def forward(self, ids: Tensor, mask: Tensor) -> Cond:
        """ids (B, L), mask (B, L) -> Cond of tokens (B, L, D), zero where masked, and their mean."""
        return understood(self, ids, mask)  # (B, L, D), (B, L), (B, D)

    def null(self, n: int) -> Cond:
        """Nothing said, `n` times: one learned token, padded to L."""
        return Cond.of(self.nothing.expand(n, -1)).padded(self.length)


class ClassReader(ModelMixin, ConfigMixin):
    """A table of K + 1 tokens; the last one says "no class"."""

    @register_to_config
    def __init__(self, classes: int, width: int):
        super().__init__()
        self.classes = classes
        self.table = nn.Parameter(torch.zeros(classes + 1, width))

    def forward(self, labels: Tensor) -> Cond:
        """labels (B,) -> Cond of one token each (B, 1, D)."""
        return Cond.of(self.table[labels])

    def null(self, n: int) -> Cond:
        """The token of no class, `n` times."""
        return Cond.of(self.table[-1].expand(n, -1))


class FrozenReader(ModelMixin, ConfigMixin):
    """The linear maps of frozen text encoders' widths to one. Nothing said is "" to every encoder: the pipeline reads
    it like any other text."""

    @register_to_config
    def __init__(self, widths: list, width: int, lengths: list, layers: list, padding: list, pools: list):
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(source, width, bias=False) for source in widths)

    def forward(self, tokens: list, masks: list, vectors: list) -> Cond:
        """For every encoder i tokens (B, L_i, W_i), masks (B, L_i), vectors (B, W_i) -> Cond of all, side by side."""
        mapped = [project(one) for project, one in zip(self.project, tokens, strict=True)]  # (B, L_i, D) each
        pooled = [project(one) for project, one in zip(self.project, vectors, strict=True)]  # (B, D) each
        return Cond(torch.cat(mapped, 1), torch.cat(masks, 1), torch.stack(pooled).sum(0))
