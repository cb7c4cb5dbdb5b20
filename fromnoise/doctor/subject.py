"""What is examined: a run with its data and a fresh model, as a training would begin, or data alone."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fromnoise.conditioning.config import FrozenTextConfig, TextConfig
from fromnoise.conditioning.folder import EncoderFault
from fromnoise.core.line import quiet
from fromnoise.core.types import Batch, Data
from fromnoise.data.config import DataConfig, ShapesConfig
from fromnoise.doctor.watch import fields_read
from fromnoise.pipeline.load import weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.place import list_checkpoints
from fromnoise.space.config import LatentConfig, PixelConfig
from fromnoise.space.folder import VAEFault
from fromnoise.training import loop, reconstruction
from fromnoise.training.checkpoint import State
from fromnoise.training.drawing import Drawing
from fromnoise.training.run import Run, VAERun
from fromnoise.training.step import Sample
from fromnoise.training.trainee import Trainee

PICTURES = 8  # of a batch that is examined
LARGE = 64e6  # parameters of a backbone that is examined with fewer blocks
BLOCKS = 3  # of them: a first, a middle and a last one
WAKE = 0.02  # standard deviation of what is added to fresh weights, as of DiT's embeddings


@dataclass
class Subject:
    """A run about to begin, or data alone. What is None does not belong to it, or is not here."""

    name: str
    run: Run | VAERun | None
    data: Data | None
    """What the run trains on; None where it is not here."""
    trainee: Trainee | None
    state: State | None
    """Fresh weights, their average, the optimizer."""
    directory: Path | None = None
    """Of a run that has begun."""
    size: int = 0
    """Side in pixels of the pictures that the run is for."""
    absent: str = ""
    """Why data or frozen models of the run are not here."""
    smaller: str = ""
    """In what the model examined is smaller than the run's."""
    fields_read: set[tuple[type, str]] = field(default_factory=set)
    """Which fields of which configs were read as the model was built."""
    family: dict[str, Run] = field(default_factory=dict)
    """Runs that are said to have as many parameters, by name."""

    @property
    def model(self) -> Any:
        """The fresh model."""
        assert self.state is not None, "this check is asked of a run"
        return self.state.model

    @property
    def served(self) -> Data:
        """What the model examined is shown."""
        assert self.trainee is not None, "this check is asked of a run"
        return self.trainee.data

    @cached_property
    def batch(self) -> Batch:
        """The first pictures of a training."""
        return self.served.train(0, PICTURES)

    @cached_property
    def woken(self) -> Any:
        """The fresh model with no weight at 0, so that every part of it matters."""
        model = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(WAKE * torch.randn(p.shape, generator=generator))
        return model

    @cached_property
    def trained(self) -> Pipeline | None:
        """The model of the run's last checkpoint, as trained; None where there is none, or its VAE is not here."""
        if self.absent or self.directory is None or not list_checkpoints(self.directory / "checkpoints"):
            return None
        return Pipeline.load(weights(self.directory, raw=True))

    def sample(self, model: Pipeline) -> Sample:
        """What a step would show `model`, but with times equally spaced and every other prompt dropped."""
        sample = draw(model, self.batch)
        place = torch.arange(len(sample.t))
        return sample._replace(t=(place + 0.5) / len(place), keep=place % 2 == 0)


def draw(model: Pipeline, batch: Batch, step: int = 0) -> Sample:
    """The sample that a training makes of `batch` at `step`."""
    from fromnoise.training import drawing  # what training calls, whatever stands there now

    return drawing.draw(model, batch, drawing.generator_of(0, step))


class Told(set[str]):
    """Every notice about prompts counts as told."""

    def __contains__(self, notice: object) -> bool:
        return True


class Chance:
    """Latents of chance in place of a data set that is not here: 4 channels, 8 cells a side, captions of shapes."""

    image_shape = (4, 8, 8)
    sizes = ((8, 8),)
    classes = 1
    counts = None

    def __init__(self, said: Data):
        self.said = said

    def train(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The numbers and captions of optimizer step `step`."""
        return self._batch(self.said.train(step, size, rank, ranks), step)

    def validation(self, size: int) -> Batch:
        """Numbers and captions of a stream of their own."""
        return self._batch(self.said.validation(size), -1)

    def captions(self, count: int) -> list[str]:
        """Captions to learn a vocabulary from."""
        return self.said.captions(count)

    def _batch(self, said: Batch, step: int) -> Batch:
        generator = torch.Generator().manual_seed(step + 1)
        return said._replace(images=torch.randn(len(said.captions), *self.image_shape, generator=generator))


def of_run(name: str, run: Run | VAERun, directory: Path | None, family: dict[str, Run]) -> Subject:
    """The run as a training would begin it, on the CPU; nothing of what is there is touched.

    Raises:
        ValueError: one line, for settings that do not fit each other or the data.
    """
    training = run.training.model_copy(update={"device": "cpu"})
    run = run.model_copy(update={"training": training})
    absent = missing(run)
    smaller, size = "", run.model.size if isinstance(run, Run) else 0
    with tempfile.TemporaryDirectory() as nowhere:
        if isinstance(run, VAERun):
            run = run.model_copy(update={"data": ShapesConfig()}) if absent else run
            data = run.data.build(training.seed)
            trainee: Trainee = reconstruction.Reconstruction(reconstruction.fit(run, data, quiet), data, quiet)
        else:
            run, smaller = affordable(run)
            place = directory or Path(nowhere)
            trainee = standing_in(run) if absent else loop.drawing(run, place, quiet)
        with fields_read() as read:
            state = loop.start(trainee, Path(nowhere), quiet)
    if isinstance(state.model, Pipeline):
        state.model.told = Told()
    served = None if absent else trainee.data
    size = size if absent else trainee.data.image_shape[1]
    return Subject(name, trainee.run, served, trainee, state, directory, size, absent, smaller, read, family)


def of_data(name: str, config: DataConfig) -> Subject:
    """A data set by itself; ValueError, one line, where it cannot be read."""
    return Subject(name, None, config.build(0), None, None)


def missing(run: Run | VAERun) -> str:
    """Which data, VAE or text encoder of the run is not here; "" where all are."""
    place = dict(run.data).get("path")
    if place is not None and not place.exists():
        return f"no data at {place}"
    try:
        for part in (run.model.space, run.model.conditioner) if isinstance(run, Run) else ():
            part.check()
    except (VAEFault, EncoderFault) as error:
        return str(error)
    return ""


def affordable(run: Run) -> tuple[Run, str]:
    """The run, with fewer blocks where it has a great many parameters; and in what it is smaller."""
    backbone, width = run.model.backbone, dict(run.model.conditioner)["width"]
    with torch.device("meta"):
        count = sum(p.numel() for p in backbone.build(run.model.channels, width).parameters())
    depth = dict(backbone).get("depth", 0)
    if count <= LARGE or depth <= BLOCKS:
        return run, ""
    shorter = run.model.model_copy(update={"backbone": backbone.model_copy(update={"depth": BLOCKS})})
    return run.model_copy(update={"model": shorter}), f"{BLOCKS} of its {depth} blocks, which are alike"


def standing_in(run: Run) -> Drawing:
    """The run with shapes, or numbers of chance for latents, in place of its data, and a text encoder trained along in
    place of frozen ones."""
    model, conditioner = run.model, run.model.conditioner
    if isinstance(conditioner, FrozenTextConfig):
        conditioner = TextConfig(width=8 * -(-conditioner.width // 8), heads=1, depth=1)
    data: Data = ShapesConfig().build(run.training.seed)
    if isinstance(model.space, LatentConfig):
        data = Chance(data)
        model = model.model_copy(update={"space": PixelConfig()})
    channels, size, _ = data.image_shape
    model = model.model_copy(update={"conditioner": conditioner, "channels": channels, "size": size})
    return Drawing(run.model_copy(update={"model": model}), data, quiet)
