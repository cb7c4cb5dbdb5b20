"""Class labels: one learned token per class, and one for no class. Legend: B batch, D width, K classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.types import Batch, Cond


class LabelConditioner(nn.Module):
    """A table of K + 1 tokens; the last one says "no class"."""

    def __init__(self, config: LabelConfig):
        super().__init__()
        self.config = config
        self.width = config.width
        self.classes = config.classes
        self.table = nn.Parameter(torch.empty(config.classes + 1, config.width))
        self.init_weights()

    @property
    def state(self) -> dict[str, str]:
        """Text to keep in a checkpoint beside the weights: none."""
        return {}

    def init_weights(self) -> None:
        """Initialise every parameter from torch's default generator.

        | parameter | distribution                              |
        |-----------|-------------------------------------------|
        | table     | N(0, 0.02^2) (DiT, Peebles and Xie 2023)  |
        """
        nn.init.normal_(self.table, std=0.02)

    def labels(self, prompts: Sequence[str]) -> list[int]:
        """The classes that prompts ask for; errors as in `LabelConfig.number`."""
        return [self.config.number(prompt) for prompt in prompts]

    def encode(self, captions: Sequence[str], labels: Tensor) -> dict[str, Tensor]:
        """Features of a batch: {"labels": (B,) int64}.

        Raises:
            ValueError: a label that is not one of the K classes.
        """
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise ValueError(f"label {int(wrong[0])} is out of range: the model knows classes 0 to {self.classes - 1}")
        return {"labels": labels}

    def read(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Features of a batch to train on, less what is dropped of them beside whole prompts: nothing is."""
        return self.encode(batch.captions, batch.labels)

    def forward(self, features: dict[str, Tensor]) -> Cond:
        """The token of each label: Cond of (B, 1, D)."""
        return Cond.of(self.table[features["labels"]])

    def null(self, n: int) -> Cond:
        """The token of no class, `n` times: Cond of (n, 1, D)."""
        return Cond.of(self.table[-1].expand(n, -1))

    def cut(self, captions: Sequence[str]) -> float:
        """Share of captions longer than is read: none is read, none is cut."""
        return 0.0

    def notice(self, captions: Sequence[str]) -> str:
        """One line to tell whoever wrote these prompts, or ""."""
        read = all(caption == "" or self.config.find(caption) is not None for caption in captions)
        return "" if read else f"this model reads class labels 0 to {self.classes - 1}, not prompts"
