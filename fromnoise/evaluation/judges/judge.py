"""Who says what pictures show: a judge for each data set that has one, and one that only draws for all others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

from fromnoise.core.files import content_hash
from fromnoise.core.types import Data
from fromnoise.data.config import DataConfig, PreparedConfig
from fromnoise.data.labelled import LabelledData
from fromnoise.data.manifest import read_manifest
from fromnoise.evaluation.judges import adherence, classifier, protocol, second
from fromnoise.evaluation.judges.classifier import Domain
from fromnoise.evaluation.judges.domains import DOMAINS
from fromnoise.pipeline.pipeline import Pipeline

Progress = Callable[[int, int], None]
PROMPTS = 10  # of a row of pictures
BATCH = 250  # pictures drawn together
TIMED = 60  # pictures that are enough to tell the speed


class Judge(Protocol):
    """Draws and judges. What it finds is plain numbers for JSON: samples, images_per_second, and what it can tell of
    accuracy, accuracy_interval, frechet, frechet_floor, diversity; None is what it cannot."""

    name: str
    about: str
    chance: float
    """Accuracy that pictures reach at most which do not hang on their prompts."""

    @property
    def identity(self) -> str:
        """What its answers hang on, beside the model and the settings."""
        ...

    def measure(
        self, pipeline: Pipeline, count: int, seed: int, steps: int | None, guidance: float | None, progress: Progress
    ) -> dict[str, Any]:
        """Draw `count` pictures, picture i from the noise of `seed` + i, and judge them."""
        ...


class PictureJudge:
    """Pictures of known classes by the classifier that comes with fromnoise."""

    def __init__(self, domain: Domain, data: LabelledData):
        self.domain, self.data = domain, data
        self.name = domain.name
        self.chance = 1 / len(domain.classes)
        self.real: protocol.Reference | None = None
        real = len(data.pictures(domain.reference)[1])
        self.about = (
            f"Pictures ({domain.name}) of all {len(domain.classes)} classes, drawn in turn, are judged by the small "
            "convolutional network that comes with fromnoise. Accuracy: the share in which it sees the class asked "
            f"for. Frechet distance: how far its features of the drawn {domain.name} lie from those of {real:,} real "
            "ones that it was not trained on; as many real training pictures reach the floor, so only what is above it "
            f"counts. Diversity: the mean distance between two drawn {domain.name} of one class, as a share of that "
            "between two real ones."
        )

    @property
    def identity(self) -> str:
        return content_hash(self.domain.asset)

    @cached_property
    def network(self) -> classifier.Classifier:
        return classifier.load(self.domain)[0]

    def measure(
        self, pipeline: Pipeline, count: int, seed: int, steps: int | None, guidance: float | None, progress: Progress
    ) -> dict[str, Any]:
        if self.real is None:
            self.real = protocol.reference(self.network, self.data, progress)
        drawn = protocol.draw(
            self.domain,
            pipeline,
            count,
            seed,
            steps=steps,
            guidance=guidance,
            batch=min(BATCH, count),
            progress=progress,
        )
        found = protocol.measure(drawn, self.network, self.real)
        if pipeline.config.conditioner.type == "none":
            found |= protocol.UNTOLD
        return found


class ShapesJudge:
    """Shapes by GenEval's rules, from pixels."""

    name = "shapes"
    chance = adherence.CHANCE
    about = (
        "Pictures of prompts about shapes are judged from their pixels by GenEval's rules. Accuracy: the mean over six "
        "tasks of the share of pictures that show exactly what was asked for; one object too many is wrong. There are "
        "no features here, so there is no Frechet distance and no diversity."
    )

    @property
    def identity(self) -> str:
        return f"pixels, and {content_hash(second.ASSET)}"

    def measure(
        self, pipeline: Pipeline, count: int, seed: int, steps: int | None, guidance: float | None, progress: Progress
    ) -> dict[str, Any]:
        found = adherence.evaluate(pipeline, count, seed, steps, guidance, progress=progress)
        drawing = found["drawing"]
        return {
            "samples": count,
            "accuracy": found["adherence"]["overall"],
            "accuracy_interval": found["intervals"]["overall"],
            "by_task": found["adherence"],
            "second": found["second"],
            "frechet": None,
            "frechet_floor": None,
            "diversity": None,
            "images_per_second": drawing["pictures"] / max(drawing["seconds"], 0.1),
        }


class NoJudge:
    """Draws a few, and takes the time."""

    name = "none"
    about = (
        "There is no judge for this data set: how true and how good the pictures are is not measured, only errors, "
        "speed and cost; look at the pictures."
    )
    identity = "none"
    chance = 0.0  # of nothing

    def __init__(self, data: Data):
        self.prompts, self.labels = prompts_of(data)

    def measure(
        self, pipeline: Pipeline, count: int, seed: int, steps: int | None, guidance: float | None, progress: Progress
    ) -> dict[str, Any]:
        count, began = min(count, TIMED), time.perf_counter()
        asked = [i % PROMPTS for i in range(count)]
        pipeline([self.prompts[i] for i in asked], steps, guidance, seed, labels=[self.labels[i] for i in asked])
        nothing = dict.fromkeys(("accuracy", "accuracy_interval", "frechet", "frechet_floor", "diversity"))
        return {"samples": count, **nothing, "images_per_second": count / (time.perf_counter() - began)}


JUDGED = ("shapes", *DOMAINS)
"""What there are judges of, by the type of the data set."""


def kind_of(config: DataConfig) -> str:
    """The type of a data set; of one that was prepared, that of its source, where its manifest names one that is
    judged, as in "50,000 pictures of cifar10, 10 classes" or "uoft-cs/cifar10"."""
    if isinstance(config, PreparedConfig):
        words = [word.strip(",;:").rpartition("/")[2] for word in read_manifest(config.path).source.split()]
        return next((kind for kind in JUDGED if kind in words), config.type)
    return config.type


def judge_of(kind: str, data: Data) -> Judge:
    """The judge of data of a type, as `kind_of` has it."""
    if kind in DOMAINS:
        domain = DOMAINS[kind]
        return PictureJudge(domain, data if isinstance(data, LabelledData) else domain.published())
    return ShapesJudge() if kind == "shapes" else NoJudge(data)


def prompts_of(data: Data) -> tuple[Sequence[str], Sequence[int]]:
    """`PROMPTS` prompts and classes to draw for looking: one of each class, or what validation pictures show."""
    if isinstance(data, LabelledData):
        return [said[0] for said in data.said][:PROMPTS], list(range(PROMPTS))
    batch = data.validation(PROMPTS)
    return batch.captions, batch.labels.tolist()
