"""Film strips: what a sample is, and what picture the network expects of it, on the way from noise to data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure

from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.style import Drawn, beside, grid, margin, sheet, show, styled
from fromnoise.plots.subject import Ask, Subject, Wish, no_model
from fromnoise.plots.trace import Trace, trace

FRAMES = 9  # of a strip
EXPECTED = "expected x0"


def frames(steps: int, count: int = FRAMES) -> list[int]:
    """`count` of the places 0 to `steps`, first and last among them, evenly; all of them where there are fewer."""
    return torch.linspace(0, steps, min(count, steps + 1)).round().int().tolist()


@styled
def figure(pipeline: Pipeline, asks: Sequence[Ask], seed: int = 0, steps: int | None = None) -> Figure:
    """Two rows for each of `asks`: x_t, and the x0 expected from it, at nine of the steps."""
    sampling = pipeline.config.sampling
    steps = steps or sampling.steps
    way = trace(pipeline, asks, seed, steps)
    seeds = f"seed {seed}" if len(asks) == 1 else f"seeds {seed} to {seed + len(asks) - 1}"
    title = f"From noise to picture in {steps} steps of {sampling.sampler}, guidance {sampling.guidance:g} ({seeds})"
    return strips(pipeline, way, [ask.name for ask in asks], title)


def strips(pipeline: Pipeline, way: Trace, names: Sequence[str], title: str) -> Figure:
    """The trace as strips, two rows for each name."""
    places = frames(len(way.times) - 1)
    caption = (
        "Upper row: the sample x_t. Lower row: the picture x0 that the network expects of it. Time runs from left to "
        "right."
    )
    drawn = sheet(margin([*names, EXPECTED]) + 0.95 * len(places), 0.8 + 1.97 * len(names), title, caption)
    axes = grid(drawn, 2 * len(names), len(places))
    for column, i in enumerate(places):
        above, below = pipeline.pictures(way.x[i]), pipeline.pictures(way.x0[i])
        for row in range(len(names)):
            show(axes[2 * row, column], above[row])
            show(axes[2 * row + 1, column], below[row])
        axes[0, column].set_title(f"t = {float(way.times[i]):.2f}", size=9.5, loc="center")
    for row, name in enumerate(names):
        beside(axes[2 * row, 0], name)
        beside(axes[2 * row + 1, 0], EXPECTED)
    return drawn


def refusal(subject: Subject, wish: Wish) -> str:
    return no_model(subject, wish)


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    asks, steps = subject.asks(wish, 3), subject.steps(wish)
    about = subject.about(wish, "trajectories", steps=steps, prompt="\n".join(ask.prompt for ask in asks))
    name = f"{subject.name}_trajectories"
    yield Drawn(name, figure(subject.pipeline, asks, wish.seed, steps), about)
