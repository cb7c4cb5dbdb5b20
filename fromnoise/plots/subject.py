"""What is plotted, and what is wished: a model or a recipe, and the prompts, seed and steps to draw with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fromnoise.conditioning.config import LabelConfig
from fromnoise.conditioning.text import TextConditioner
from fromnoise.core.config import hint
from fromnoise.core.files import content_hash
from fromnoise.data import cifar10, mnist, scenes
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes import RECIPES, named
from fromnoise.training.directory import run_of
from fromnoise.training.run import Run

MOST_STEPS = 50  # of a sampler, where no number is asked for: 1000 would take minutes and look no different
UNTRAINED = "a recipe has no weights: name a run"


@dataclass(frozen=True)
class Known:
    """The classes of a data set: what each is called, and how a prompt says it."""

    rows: tuple[tuple[str, ...], ...]
    """Prompts, a row of the grid each; one long where seeds are the columns."""
    names: tuple[str, ...]
    """Of each row."""
    columns: tuple[str, ...]
    """Of each column; none where they are seeds."""
    words: tuple[str, ...]
    """All words that say which class; a text model that learned from this data has a token for each."""
    examples: tuple[str, ...]
    """Prompts that show what the data holds."""


def _single(names: tuple[str, ...], prompts: tuple[str, ...]) -> Known:
    return Known(tuple((prompt,) for prompt in prompts), names, (), names, prompts)


DATA = {
    "shapes": Known(
        rows=tuple(tuple(f"a {colour} {shape}" for shape in scenes.SHAPES) for colour in scenes.COLOURS),
        names=tuple(scenes.COLOURS),
        columns=scenes.SHAPES,
        words=(*scenes.COLOURS, *scenes.SHAPES),
        examples=(
            "a red circle left of a blue square",
            "two green triangles",
            "a large yellow star",
            "a small purple ring and a large black cross",
        ),
    ),
    "mnist": _single(mnist.WORDS, tuple(f"a handwritten {word}" for word in mnist.WORDS)),
    "cifar10": _single(cifar10.CLASSES, tuple(f"a photo of {cifar10.with_article(word)}" for word in cifar10.CLASSES)),
}
"""Data sets whose classes have names, by the type of their config."""


class Ask(NamedTuple):
    """One picture to draw."""

    prompt: str
    label: int
    name: str
    """As it is shown."""


@dataclass(frozen=True)
class Wish:
    """How plots are to be drawn. What is None or empty is as the subject has it."""

    prompts: tuple[str, ...] = ()
    """Prompts; for a model of classes, numbers or names of classes."""
    seed: int = 0
    steps: int | None = None
    toy: Literal["moons", "checkerboard", "gaussians"] = "moons"


@dataclass(frozen=True)
class Subject:
    """A model, or a recipe that no model has been trained by yet."""

    name: str
    """Begins the names of its files."""
    config: ModelConfig
    model: Pipeline | None
    """None for a recipe."""
    run: Run | None
    """None where only weights are known."""
    metadata: dict[str, str]
    """What its PNGs say of where they come from."""

    @property
    def pipeline(self) -> Pipeline:
        """The model; plots that need one refuse a subject without."""
        assert self.model is not None, UNTRAINED
        return self.model

    @property
    def known(self) -> Known | None:
        """The classes that it was trained on, if they have names: by its run, else by the words it has tokens for."""
        if self.run is not None:
            return DATA.get(self.run.data.type)
        if self.model is not None and isinstance(self.model.conditioner, TextConditioner):
            read = self.model.conditioner.lengths
            return next((known for known in DATA.values() if set(read(known.words)) == {2}), None)  # start, and word
        return None

    def steps(self, wish: Wish) -> int:
        """Steps of the sampler: those asked for, else the model's own, up to `MOST_STEPS`."""
        return wish.steps or min(self.config.sampling.steps, MOST_STEPS)

    def asks(self, wish: Wish, count: int) -> list[Ask]:
        """What to draw: all that is wished, else `count` examples at most. Empty where none is known.

        Raises:
            ValueError: one line, where a model of classes is asked for something else than a class.
        """
        conditioner = self.config.conditioner
        if isinstance(conditioner, LabelConfig):
            wished = [conditioner.number(prompt) for prompt in wish.prompts]
            labels = wished or range(min(count, conditioner.classes))
            return [Ask("", label, self.class_name(label)) for label in labels]
        if conditioner.type == "none":
            return [Ask("", 0, "no prompt")]
        previews = self.run.training.previews if self.run is not None else ()
        examples = previews or (self.known.examples if self.known else ())
        return [Ask(prompt, 0, prompt) for prompt in wish.prompts or examples[:count]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes of a model of classes, as far as known."""
        conditioner = self.config.conditioner
        recorded = conditioner.names if isinstance(conditioner, LabelConfig) else ()
        return recorded or (self.known.names if self.known else ())

    def class_name(self, label: int) -> str:
        """Name of class `label` of a model of classes."""
        names = self.class_names
        return f"{label} {names[label]}" if label < len(names) else f"class {label}"

    def about(self, wish: Wish, kind: str, **more: object) -> dict[str, str]:
        """Metadata of a PNG."""
        shown = {"plot": kind, "seed": str(wish.seed)} | {key: str(value) for key, value in more.items()}
        return self.metadata | shown


def find(place: str | os.PathLike[str], *, raw: bool = False, device: str = "auto") -> Subject:
    """The recipe called `place`, or the model in it (as `fromnoise.load` takes it), which draws as a sweep has chosen.

    Raises:
        ValueError: one line, when there is neither.
    """
    text, path = os.fspath(place), Path(place)
    if text in RECIPES:
        run = named(text)
        return Subject(text, run.model, None, run, {"recipe": text})
    if not path.exists() and path.name == text and not path.suffix:
        raise ValueError(f"{text!r} is neither a run nor a recipe; recipes {hint(text, RECIPES)}")
    file = weights(path, raw=raw)
    pipeline = load(path, raw=raw, device=device)
    name = path.stem if path.is_file() else path.resolve().name
    return Subject(name, pipeline.config, pipeline, run_of(file), {"checkpoint": content_hash(file)})


def no_model(subject: Subject, wish: Wish) -> str:
    """Why no picture of it can be drawn, or ""."""
    if subject.model is None:
        return UNTRAINED
    if not subject.asks(wish, 1):
        return "no prompt is known for it: give --prompt"
    return ""
