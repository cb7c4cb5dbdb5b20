"""One seed under more and more guidance: what the prompt adds to the same noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from PIL import Image

from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.style import Drawn, beside, grid, margin, sheet, show, styled
from fromnoise.plots.subject import Ask, Subject, Wish, no_model

SCALES = (0.0, 1.0, 2.0, 3.0, 4.0, 7.5, 10.0)


def scales_of(sampling: Sampling) -> list[float]:
    """`SCALES`, and the model's own among them, rising."""
    return sorted({*SCALES, sampling.guidance})


def sweep(pipeline: Pipeline, asks: Sequence[Ask], seed: int, steps: int | None) -> list[list[Image.Image]]:
    """A row of pictures for each of `asks`, one for each scale, all from the noise of `seed`."""
    return [
        [
            pipeline(ask.prompt, steps, scale, seed, labels=[ask.label])[0]
            for scale in scales_of(pipeline.config.sampling)
        ]
        for ask in asks
    ]  # one picture a call: those of one call have noise of their own


@styled
def figure(pipeline: Pipeline, asks: Sequence[Ask], seed: int = 0, steps: int | None = None) -> Figure:
    """A row for each of `asks`, a column for each scale."""
    sampling = pipeline.config.sampling
    scales, (low, high) = scales_of(sampling), sampling.interval
    drawn = sheet(
        margin([ask.name for ask in asks]) + 1.2 * len(scales),
        0.9 + 1.2 * len(asks),
        f"The same noise under more and more guidance (seed {seed})",
        f"0: the prompt is ignored. 1: it is followed as in training. More: null + scale (prompt − null), for t from "
        f"{low:g} to {high:g}. Bold is the model's own.",
    )
    axes = grid(drawn, len(asks), len(scales))
    for row, (ask, pictures) in enumerate(zip(asks, sweep(pipeline, asks, seed, steps), strict=True)):
        for column, picture in enumerate(pictures):
            show(axes[row, column], picture)
        beside(axes[row, 0], ask.name)
    for column, scale in enumerate(scales):
        axes[0, column].set_title(f"{scale:g}", loc="center", weight="bold" if scale == sampling.guidance else None)
    return drawn


def refusal(subject: Subject, wish: Wish) -> str:
    if subject.config.conditioner.type == "none":
        return "it is unconditional: guidance changes nothing"
    return no_model(subject, wish)


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    asks, steps = subject.asks(wish, 4), subject.steps(wish)
    about = subject.about(wish, "guidance", steps=steps, prompt="\n".join(ask.prompt for ask in asks))
    yield Drawn(f"{subject.name}_guidance", figure(subject.pipeline, asks, wish.seed, steps), about)
