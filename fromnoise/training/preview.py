"""Pictures of the same prompts from the same noise, as training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fromnoise.core.files import write_bytes
from fromnoise.core.types import Data
from fromnoise.pipeline.pictures import as_png, grid
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.ema import Ema

COUNT = 8  # prompts taken from the validation captions where none are asked for


class Previews:
    """PNGs with a column for each prompt: above by the weights as they are, below by their average."""

    def __init__(self, directory: Path, data: Data, prompts: Sequence[str]):
        self.directory = directory
        batch = data.validation(COUNT)
        self.prompts = list(prompts or batch.captions)
        self.labels = None if prompts else batch.labels.tolist()

    def write(self, step: int, pipeline: Pipeline, ema: Ema, precision: Precision) -> None:
        """Draw the preview after `step` steps."""
        with torch.compiler.set_stance("force_eager"):  # nothing is compiled for these few forwards
            raw = pipeline(self.prompts, labels=self.labels, precision=precision)
            with ema.applied():
                averaged = pipeline(self.prompts, labels=self.labels, precision=precision)
        under = [f"{kind}: {prompt}" for kind in ("raw", "average") for prompt in self.prompts]
        sheet = grid(raw + averaged, len(self.prompts), under)
        self.directory.mkdir(exist_ok=True)
        write_bytes(self.directory / f"step-{step:08d}.png", as_png(sheet))
