"""Pictures of the same prompts from the same noise, as training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fromnoise.core.files import write_bytes
from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.core.types import Data
from fromnoise.pipeline.pictures import as_png, grid
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.ema import Ema

COUNT = 8  # prompts taken from the validation captions where none are asked for


class Previews:
    """PNGs with a column for each prompt: above by the weights as they are, below by their average."""

    def __init__(self, directory: Path, data: Data, prompts: Sequence[str], ranks: Ranks = ALONE):
        self.directory, self.ranks = directory, ranks
        batch = data.validation(COUNT)
        self.prompts = list(prompts or batch.captions)
        self.labels = None if prompts else batch.labels.tolist()

    def write(self, step: int, pipeline: Pipeline, ema: Ema, precision: Precision) -> None:
        """Draw the preview after `step` steps."""
        with torch.compiler.set_stance("force_eager"):  # nothing is compiled for these few forwards
            with ema.raw():
                raw = self.drawn(pipeline, precision)
            with ema.applied():
                averaged = self.drawn(pipeline, precision)
        if not self.ranks.first:
            return
        under = [f"{kind}: {prompt}" for kind in ("raw", "average") for prompt in self.prompts]
        sheet = grid(raw + averaged, len(self.prompts), under)
        self.directory.mkdir(exist_ok=True)
        write_bytes(self.directory / f"step-{step:08d}.png", as_png(sheet))

    def drawn(self, pipeline: Pipeline, precision: Precision) -> list[Image.Image]:
        """All pictures, each process having drawn its share; picture i from seed i, as by one."""
        first, last = self.ranks.span(len(self.prompts))
        labels = self.labels[first:last] if self.labels else None
        own = pipeline(self.prompts[first:last], labels=labels, seed=first, precision=precision)
        pixels = torch.stack([torch.from_numpy(np.array(picture)) for picture in own])  # (P, H, W) or (P, H, W, 3)
        return [Image.fromarray(row.numpy()) for row in self.ranks.rows(pixels, len(self.prompts))]
