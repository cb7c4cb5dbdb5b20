"""Finding the weights in whatever a user points at: a run, one of its checkpoints, or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fromnoise.core.config import read_yaml
from fromnoise.core.device import pick
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.shipped import shipped

SAMPLING = "sampling.yaml"
"""In a run directory: how to draw in place of what the checkpoint says, as a sweep has chosen it."""


def load(place: str | os.PathLike[str] | None = None, *, raw: bool = False, device: str = "auto") -> Pipeline:
    """The model in `place`, ready to draw.

    place: a run directory (its latest checkpoint), a checkpoint directory, or a .safetensors file; left out, the model
    of shapes that comes with fromnoise.
    raw: the weights as trained, in place of their average (EMA). device: cpu, cuda, mps, or auto for the best.
    What is not asked for when drawing is as the run directory's sampling.yaml has it, if there is one, which is told on
    stderr in one line; else as the run was trained with.

    Raises:
        ValueError: one line, when there is no model there, or it cannot be read.
    """
    place = shipped() if place is None else place
    pipeline = Pipeline.load(weights(place, raw=raw), pick(device))
    chosen = Path(place) / SAMPLING
    if chosen.is_file():
        sampling = read_yaml(Sampling, chosen)
        pipeline.draw_as(sampling)
        print(f"note: draws as {chosen} has it, chosen by a sweep: {sampling.words()}", file=sys.stderr, flush=True)
    return pipeline


def weights(place: str | os.PathLike[str], *, raw: bool = False) -> Path:
    """The file that `load` reads; arguments and errors alike."""
    path = Path(place)
    if path.is_file():
        if raw:
            raise ValueError(f"{path} is one file of weights: raw ones are kept in run and checkpoint directories only")
        return path
    if not path.exists():
        raise ValueError(f"nothing at {path}; allowed: a run directory, a checkpoint directory, a .safetensors file")
    name = "model.safetensors" if raw else "ema.safetensors"
    if (path / name).is_file():
        return path / name
    checkpoints = sorted((path / "checkpoints").glob("step-*"))
    if not checkpoints:
        raise ValueError(f"no checkpoint in {path}: train it first, or point at a directory that holds {name}")
    return checkpoints[-1] / name
