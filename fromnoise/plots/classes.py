"""Every class in one grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from fromnoise.conditioning.config import LabelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.style import Drawn, beside, grid, sheet, show, styled
from fromnoise.plots.subject import UNTRAINED, Ask, Subject, Wish

SEEDS = 10


class Row(NamedTuple):
    """A row of the grid: its name, and what to draw in it."""

    name: str
    asks: list[Ask]


def rows_of(subject: Subject, wish: Wish) -> list[Row]:
    """The classes, a row each: those wished, else all that are known. Empty where none is."""
    conditioner, known = subject.config.conditioner, subject.known
    if wish.prompts or conditioner.type == "none":
        asks = subject.asks(wish, 0) if wish.prompts else []
    elif isinstance(conditioner, LabelConfig):
        asks = subject.asks(wish, conditioner.classes)
    elif known and len(known.rows[0]) > 1:
        named = zip(known.names, known.rows, strict=True)
        return [Row(name, [Ask(prompt, 0, prompt) for prompt in row]) for name, row in named]
    else:
        asks = [Ask(prompt, 0, prompt) for (prompt,) in (known.rows if known else ())]
    return [Row(ask.name, [ask] * SEEDS) for ask in asks]


@styled
def figure(pipeline: Pipeline, rows: Sequence[Row], seed: int = 0, steps: int | None = None) -> Figure:
    """A row of pictures for each of `rows`; column j is drawn from the noise of seed + j."""
    columns = len(rows[0].asks)
    drawn = sheet(
        1.9 + 0.82 * columns,
        0.8 + 0.82 * len(rows),
        "Every class the model knows",
        f"Every column is drawn from the same noise: seeds {seed} to {seed + columns - 1}.",
    )
    axes = grid(drawn, len(rows), columns)
    for i, row in enumerate(rows):
        prompts, labels = [ask.prompt for ask in row.asks], [ask.label for ask in row.asks]
        for j, picture in enumerate(pipeline(prompts, steps, seed=seed, labels=labels)):
            show(axes[i, j], picture)
        beside(axes[i, 0], row.name)
    return drawn


def refusal(subject: Subject, wish: Wish) -> str:
    if subject.config.conditioner.type == "none":
        return "it is unconditional: there are no classes"
    if subject.model is None:
        return UNTRAINED
    return "" if rows_of(subject, wish) else "its classes are not known: give one --prompt for each"


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    rows, steps = rows_of(subject, wish), subject.steps(wish)
    drawn = figure(subject.pipeline, rows, wish.seed, steps)
    yield Drawn(f"{subject.name}_classes", drawn, subject.about(wish, "classes", steps=steps))
