"""Procedural scenes of coloured shapes: the first thing to train."""

from __future__ import annotations

from fromnoise.data.config import ShapesConfig
from fromnoise.training.run import Run


def shapes() -> Run:
    """Coloured shapes by prompt, from nothing: "a red circle left of a blue square".

    Hardware: two CPU cores.
    Command:  fromnoise train shapes --directory runs/shapes
    """
    return Run(recipe="shapes", data=ShapesConfig())
