"""fromnoise trains text-to-image models from nothing.

Five names: `load` a model, `train` a `Run`, `evaluate` what it draws; `recipes` are functions that return a `Run`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fromnoise import recipes
    from fromnoise.evaluation.whole import evaluate
    from fromnoise.pipeline.load import load
    from fromnoise.training.loop import train
    from fromnoise.training.run import Run

__all__ = ["Run", "evaluate", "load", "recipes", "train"]

_PLACES = {
    "Run": "fromnoise.training.run",
    "evaluate": "fromnoise.evaluation.whole",
    "load": "fromnoise.pipeline.load",
    "train": "fromnoise.training.loop",
}


def __getattr__(name: str) -> Any:
    # Only what is asked for is imported (PEP 562): torch takes seconds, and most of the command line needs none of it.
    if name == "recipes":
        return import_module("fromnoise.recipes")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
