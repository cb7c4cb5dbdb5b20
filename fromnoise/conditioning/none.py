"""No condition: one learned token for every picture. Legend: B batch, D width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fromnoise.conditioning.config import NoConditionConfig
from fromnoise.core.types import Batch, Cond


class NoConditioner(nn.Module):
    """Every picture gets the same learned token; nothing said and something said are the same."""

    def __init__(self, config: NoConditionConfig):
        super().__init__()
        self.width = config.width
        self.token = nn.Parameter(torch.empty(config.width))
        self.init_weights()

    @property
    def state(self) -> dict[str, str]:
        """Text to keep in a checkpoint beside the weights: none."""
        return {}

    def init_weights(self) -> None:
        """Initialise every parameter from torch's default generator.

        | parameter | distribution  |
        |-----------|---------------|
        | token     | N(0, 0.02^2)  |
        """
        nn.init.normal_(self.token, std=0.02)

    def labels(self, prompts: Sequence[str]) -> list[int]:
        """The classes that prompts ask for: there is only one."""
        return [0] * len(prompts)

    def encode(self, captions: Sequence[str], labels: Tensor) -> dict[str, Tensor]:
        """Features of a batch: {"labels": (B,)}; only their number counts."""
        return {"labels": labels}

    def read(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Features of a batch to train on, less what is dropped of them beside whole prompts: nothing is."""
        return self.encode(batch.captions, batch.labels)

    def forward(self, features: dict[str, Tensor]) -> Cond:
        """The token, B times: Cond of (B, 1, D)."""
        return self.null(features["labels"].shape[0])

    def null(self, n: int) -> Cond:
        """The token, `n` times: Cond of (n, 1, D)."""
        return Cond.of(self.token.expand(n, -1))

    def cut(self, captions: Sequence[str]) -> float:
        """Share of captions longer than is read: none is read, none is cut."""
        return 0.0

    def notice(self, captions: Sequence[str]) -> str:
        """One line to tell whoever wrote these prompts, or ""."""
        return "this model reads no prompts: every picture is drawn unconditionally" if any(captions) else ""
