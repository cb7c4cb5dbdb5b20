"""A pipeline in training: pictures from prompts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.core.types import Data
from fromnoise.data.prepared import PreparedData
from fromnoise.pipeline.asked import rows_of_picture
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import preview, validation
from fromnoise.training.origin import begin
from fromnoise.training.parallel import is_filled
from fromnoise.training.prepared import agree
from fromnoise.training.preview import Previews
from fromnoise.training.run import Run
from fromnoise.training.step import Sample, draw, generator_of, widened
from fromnoise.training.trainee import Looks, Trainee
from fromnoise.training.validation import Validation

CAPTIONS = 10_000  # read to learn the vocabulary


class Drawing(Trainee):
    """A pipeline that learns to draw what captions say."""

    def __init__(self, run: Run, data: Data, say: Callable[[str], None], ranks: Ranks = ALONE):
        self.run, self.data, self.say, self.ranks = run, data, say, ranks

    def build(self) -> Pipeline:
        """A fresh pipeline, whose vocabulary is that of the captions, or one with the weights to begin with."""
        captions = self.data.captions(CAPTIONS)
        hollow = is_filled(self.ranks, self.run.training)
        if self.run.start.run is None:
            pipeline = Pipeline.build(self.run.model, captions, self.run.training.seed, hollow)
        else:
            pipeline = begin(self.run.model, self.run.start.run, self.say, hollow)
        if notice := pipeline.conditioner.notice(captions):
            self.say(f"captions: {notice}")
            pipeline.told.add(notice)  # where its previews' prompts are noticed alike, that is no news
        return pipeline

    def load(self, path: Path) -> Pipeline:
        """The pipeline in a checkpoint's file."""
        return Pipeline.load_hollow(path) if is_filled(self.ranks, self.run.training) else Pipeline.load(path)

    def draw(self, model: Pipeline, step: int, size: int) -> Sample:
        """Latents, features, times, noise and dropped prompts."""
        first, last = self.ranks.share(size)
        batch = widened(model, self.data.train(step, size, self.ranks.rank, self.ranks.size), first, size)
        return draw(model, batch, generator_of(self.run.training.seed, step)).rows(first, last)

    def trial(self, model: Pipeline, size: int) -> Sample:
        """As `draw`, of held-out pictures, stretched to the largest size that is trained on."""
        batch = self.data.validation(size)
        cell = model.space.factor if batch.encoded else 1  # pixels along the side of what is stored
        largest = [side // cell for side in max(self.data.sizes, key=math.prod)]
        if math.prod(largest) > batch.images[0, 0].numel():
            batch = batch._replace(images=F.interpolate(batch.images, largest))  # (B, S, h, w)
        return draw(model, batch, generator_of(0, 0))

    def rehearse(self, model: Pipeline) -> None:
        """Find pictures whose sides do not fit the model, labels that are no classes of it, previews that cannot be
        drawn; tell of the space."""
        for notice in (self.run.model.conditioner.notice(self.run.model.objective.dropout), model.space.notice):
            if notice:
                self.say(notice)
        for height, width in self.data.sizes:
            if height % model.multiple or width % model.multiple:
                raise ValueError(
                    f"pictures of {height}x{width} pixels (height x width) do not fit the model, which takes multiples "
                    f"of {model.multiple}: set data.multiple to one"
                )
        if isinstance(self.data, PreparedData):
            agree(model, self.data)
        model.conditioner.encode([""] * self.data.classes, torch.arange(self.data.classes))
        previews = self.previews(Path())
        model.stream(previews.prompts, labels=previews.labels)  # refuses at once what it cannot draw
        with torch.no_grad():
            model.loss(*self.trial(model, 1).to(model.device))

    def validation(self, model: Pipeline) -> Validation:
        """Losses on held-out pictures, by time."""
        return Validation(model, self.data, self.ranks)

    def previews(self, directory: Path) -> Previews:
        """Pictures of the same prompts."""
        return Previews(directory, self.data, self.run.training.previews, self.ranks)

    def looks(self) -> Looks:
        """Both sets of weights are validated, and draw the previews."""
        shown = 2 * (len(self.run.training.previews) or preview.COUNT)
        return Looks(2 * validation.COUNT, shown * rows_of_picture(self.run.model), 0, shown)

    def finish(self, directory: Path, device: torch.device) -> None:
        """Nothing: checkpoints are all that drawing needs."""
