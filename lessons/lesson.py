"""What the lessons share: the size they run at, digits, a training that reports in one line, pictures, exercises.

Everything that is taught is in the package and in the lessons themselves; here is only what would distract from it.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

import fromnoise
from fromnoise.data.config import MNISTConfig
from fromnoise.data.labelled import LabelledData
from fromnoise.data.mnist import mnist
from fromnoise.pipeline import pictures
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots import style
from fromnoise.training.run import Run

TOY = os.environ.get("FROMNOISE_TOY", "0") != "0"
"""Whether everything is so small that it runs in seconds and learns nothing, as the tests of the lessons want it."""
DPI = 72  # of figures: a notebook is to stay below 1.5 MB

T = TypeVar("T")


def sized(full: T, toy: T) -> T:
    """`full`, or `toy` where the environment says FROMNOISE_TOY=1."""
    return toy if TOY else full


class Progress(io.StringIO):
    """What a training says, its last line only, under the cell that runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.handle: Any = display({"text/plain": "begins"}, raw=True, display_id=True)

    def write(self, text: str) -> int:
        if text.strip():
            self.show(text.strip())
        return len(text)

    def show(self, line: str) -> None:
        """Put `line` in the place of the one before."""
        self.handle.update({"text/plain": line}, raw=True)


class Trained(NamedTuple):
    """A model, and how it came about."""

    model: Pipeline
    losses: list[tuple[int, float]]  # (step, mean loss since the one before)
    validation: float  # of the averaged weights, at the end
    seconds: float


def shortened(run: Any, steps: int, **training: Any) -> Any:
    """`run`, a Run or a VAERun, with so many steps, eager, validated and previewed at its end only."""
    often = {"log_every": max(1, steps // 40), "save_every": steps, "validate_every": steps, "preview_every": steps}
    few = {"steps": steps, "warmup": min(run.training.warmup, steps // 4), "compile": "off", "precision": "float32"}
    return run.model_copy(update={"training": run.training.model_copy(update={**often, **few, **training})})


def train(run: Run, directory: Path | None = None) -> Trained:
    """Train `run`, as `fromnoise.train` does, and say how long it took. The directory is thrown away where none is
    named."""
    with tempfile.TemporaryDirectory() as other:
        place = directory or Path(other) / "run"
        model, seconds = timed(lambda: fromnoise.train(run, place), f"{run.training.steps} steps")
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    return Trained(model, losses, [line["validation_ema"] for line in lines if "validation_ema" in line][-1], seconds)


def timed(work: Callable[[], T], what: str) -> tuple[T, float]:
    """The result of `work`, and its seconds, which are told; what it says on the way stands there meanwhile."""
    progress, began = Progress(), time.perf_counter()
    with redirect_stderr(progress):
        result = work()
    seconds = time.perf_counter() - began
    progress.show(f"{what} took {seconds:.0f} s here")
    return result, seconds


def digits() -> LabelledData:
    """MNIST, downloaded at its first use."""
    with redirect_stderr(Progress()) as progress:
        data = mnist(MNISTConfig(), 0)
        progress.show(f"MNIST: {data.counts.learned:,} digits to train on, {data.counts.held_out:,} to validate")
    return data


@style.styled
def panels(
    rows: int, columns: int, width: float, height: float, title: str, caption: str, **axes: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of `width` x `height` inches and its axes; further arguments are of matplotlib's `subplots`."""
    figure = style.sheet(width, height, title, caption)
    return figure, figure.subplots(rows, columns, squeeze=False, **axes)


@style.styled
def tiles(
    shown: list[list[Any]], title: str, caption: str, rows: list[str] | None = None, columns: list[str] | None = None
) -> Image.Image:
    """Pictures row by row, with names beside rows and above columns."""
    names, across = rows or [""] * len(shown), len(shown[0])
    left = style.margin(rows) if rows else 0.1
    figure = style.sheet(left + 0.85 * across, 0.95 + 0.9 * len(shown), title, caption)
    grid = style.grid(figure, len(shown), across)
    for axes, row, name in zip(grid, shown, names, strict=True):
        for one, picture in zip(axes, row, strict=True):
            style.show(one, picture)
        style.beside(axes[0], name)
    for one, name in zip(grid[0], columns or [], strict=False):
        one.set_title(name, loc="center", size=9.5)
    return show(figure)


def sheet(images: Any, columns: int = 10, labels: list[str] | None = None) -> Image.Image:
    """Pictures side by side: PIL's, or pixels (B, C, H, W) in [-1, 1]."""
    return show(pictures.grid(images if isinstance(images, list) else pictures.as_pictures(images), columns, labels))


def show(drawn: Figure | Image.Image, dpi: int = DPI) -> Image.Image:
    """A figure or a picture as a notebook keeps it: 256 colours, which is a third of the bytes."""
    picture = style.image(drawn, dpi) if isinstance(drawn, Figure) else drawn
    # Median cut, PIL's usual way, mixes the colour of a few dots with others: red dots among blue ones turn brown.
    coverage = Image.Quantize.MAXCOVERAGE
    return picture.convert("RGB").quantize(256, coverage, kmeans=1, dither=Image.Dither.NONE)


def check(number: int, answer: Any, holds: Callable[[Any], bool], hint: str) -> None:
    """Say whether exercise `number` is answered; AssertionError, with a hint, where the answer is not right."""
    if answer is None:
        print(f"Exercise {number}: write your answer in place of None, and run this cell again.")
        return
    assert holds(answer), f"exercise {number}: not yet. {hint}"
    print(f"Exercise {number}: right.")
