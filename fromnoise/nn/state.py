"""Weights from elsewhere."""

from __future__ import annotations

from torch import Tensor, nn


def load_strictly(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load `state`; ValueError, one line, where a key is missing, unknown or of another shape."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError("not this model's weights: " + " ".join(str(error).split())) from None
