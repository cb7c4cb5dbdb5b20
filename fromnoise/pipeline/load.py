"""Finding the weights in whatever a user points at: a run, one of its checkpoints, or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fromnoise.core.device import pick
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.place import SAMPLING, chosen_sampling, shipped, weights


def load(place: str | os.PathLike[str] | None = None, *, raw: bool = False, device: str = "auto") -> Pipeline:
    """The model in `place`, ready to draw.

    place: a run directory (its latest checkpoint), a checkpoint directory, or a .safetensors file; left out, the model
    of shapes that comes with fromnoise.
    raw: the weights as trained, in place of their average (EMA). device: cpu, cuda, mps, or auto for the best.
    What is not asked for when drawing is as the run directory's sampling.yaml has it, if there is one, which is told on
    stderr in one line; else as the run was trained with. Threads may draw with it at once (see `Pipeline`).

    Raises:
        ValueError: one line, when there is no model there, or it cannot be read.
    """
    place = shipped() if place is None else place
    pipeline = Pipeline.load(weights(place, raw=raw), pick(device))
    if sampling := chosen_sampling(place, pipeline.config.sampling):
        pipeline.draw_as(sampling)
        how = f"draws as {Path(place) / SAMPLING} has it, chosen by a sweep: {sampling.words()}"
        print(f"note: {how}", file=sys.stderr, flush=True)
    return pipeline
