"""Every class in one grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from matplotlib.figure import Figure

from fromnoise.conditioning.config import LabelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.style import Drawn, beside, grid, margin, sheet, show, styled
from fromnoise.plots.subject import UNTRAINED, Ask, Subject, Wish

SEEDS = 10


class Classes(NamedTuple):
    """A grid of what is to be drawn."""

    columns: tuple[str, ...]
    """Their names; none where they are seeds."""
    rows: dict[str, list[Ask]]
    """What is drawn in each row, by the row's name."""


def classes_of(subject: Subject, wish: Wish) -> Classes:
    """The classes wished, else all that are known. No rows where none is."""
    conditioner, known = subject.config.conditioner, subject.known
    if wish.prompts or conditioner.type == "none":
        asks = subject.asks(wish, 0) if wish.prompts else []
    elif isinstance(conditioner, LabelConfig):
        asks = subject.asks(wish, conditioner.classes)
    elif known and known.columns:
        named = zip(known.names, known.rows, strict=True)
        return Classes(known.columns, {name: [Ask(prompt, 0, prompt) for prompt in row] for name, row in named})
    else:
        asks = [Ask(prompt, 0, prompt) for (prompt,) in (known.rows if known else ())]
    return Classes((), {ask.name: [ask] * SEEDS for ask in asks})


@styled
def figure(pipeline: Pipeline, classes: Classes, seed: int = 0, steps: int | None = None) -> Figure:
    """The grid; column j is drawn from the noise of seed + j."""
    names, rows = list(classes.rows), list(classes.rows.values())
    columns = classes.columns or tuple(f"seed {seed + j}" for j in range(len(rows[0])))
    drawn = sheet(
        margin(names) + 0.82 * len(columns),
        0.95 + 0.82 * len(rows),
        "Every class the model knows",
        f"Every column is drawn from the same noise: seeds {seed} to {seed + len(columns) - 1}.",
    )
    axes = grid(drawn, len(rows), len(columns))
    for i, asks in enumerate(rows):
        prompts, labels = [ask.prompt for ask in asks], [ask.label for ask in asks]
        for j, picture in enumerate(pipeline(prompts, steps, seed=seed, labels=labels)):
            show(axes[i, j], picture)
        beside(axes[i, 0], names[i])
    for j, column in enumerate(columns):
        axes[0, j].set_title(column, loc="center", size=9.5)
    return drawn


def refusal(subject: Subject, wish: Wish) -> str:
    if subject.config.conditioner.type == "none":
        return "it is unconditional: there are no classes"
    if subject.model is None:
        return UNTRAINED
    return "" if classes_of(subject, wish).rows else "its classes are not known: give one --prompt for each"


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    classes, steps = classes_of(subject, wish), subject.steps(wish)
    drawn = figure(subject.pipeline, classes, wish.seed, steps)
    yield Drawn(f"{subject.name}_classes", drawn, subject.about(wish, "classes", steps=steps))
