"""The model that comes with fromnoise. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped() -> Path:
    """The file of the model that comes with fromnoise: coloured shapes by prompt.

    Raises:
        ValueError: one line, when this copy came without.
    """
    path = Path(str(files("fromnoise") / "assets" / "shapes.safetensors"))
    if not path.is_file():
        raise ValueError("this copy of fromnoise came without a model: name a run first, as in runs/shapes")
    return path
