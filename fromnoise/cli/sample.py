"""`fromnoise sample`: pictures of prompts, as PNGs that say how they were drawn."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, PositiveInt

from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, Name, Seed
from fromnoise.core.files import names_path
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.pipeline.config import sides
from fromnoise.pipeline.place import shipped

if TYPE_CHECKING:
    from PIL import Image

    from fromnoise.pipeline.pipeline import Pipeline

USAGE = 'fromnoise sample [RUN] "a prompt" ["another prompt" ...] [--option VALUE ...]'
DESCRIPTION = """\
Draws pictures of prompts.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file. The first argument is
taken for RUN when something is there, or its first word is written like a path; without RUN the model that came with
fromnoise draws. A first argument of one word with others behind it may be meant for a run that is elsewhere: that it is
drawn as a prompt is then told.
A model of classes is asked for them by number, fromnoise sample runs/dit 7 3, or by the names that its data had for
them. A prompt that begins with a hyphen goes after a -- alone.
"""
CHUNK = 64  # pictures drawn together


def _checked_size(text: str) -> str:
    sides(text)
    return text


class Options(Config):
    """How to draw, and where to put it. What is left out is as the model has it."""

    steps: int | None = None
    """Steps from noise to picture, 1 to 1000."""
    guidance: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more follows it harder, up to 100."""
    sampler: Annotated[str, Name(SAMPLERS)] | None = None
    """Name of the sampler."""
    seed: Seed = 0
    """Noise of the first picture; the next ones count on from it."""
    size: Annotated[str, AfterValidator(_checked_size)] | None = None
    """Side in pixels, or HEIGHTxWIDTH."""
    count: PositiveInt = 1
    """Pictures of each prompt."""
    out: Path = Path("pictures")
    """Directory for the pictures; no file in it is ever overwritten."""
    grid: bool = False
    """Also put all pictures, with their prompts, on one sheet."""
    animate: Literal["webp", "gif"] | None = None
    """Also write how each picture came out of noise, as an animation of this kind."""
    raw: bool = False
    """Draw with the weights as trained, in place of their average."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    place, prompts = split(words)
    from fromnoise.core.files import content_hash
    from fromnoise.pipeline.load import load, weights
    from fromnoise.pipeline.pictures import drawn_by, grid, save_animation, save_png, stem

    pipeline = load(place, raw=options.raw, device=options.device)
    pipeline.conditioner.labels(prompts)  # what is wrong with the last prompt is told before the first is drawn
    jobs = [(prompt, options.seed + i) for i, prompt in enumerate(p for p in prompts for _ in range(options.count))]
    sampling = pipeline.sampling(options.sampler, options.steps, options.guidance)
    about = drawn_by(sampling, content_hash(weights(place, raw=options.raw)))
    pictures: list[Image.Image] = []
    for first in range(0, len(jobs), CHUNK):
        part = jobs[first : first + CHUNK]
        films = draw(pipeline, [prompt for prompt, _ in part], part[0][1], options)
        for (prompt, seed), film in zip(part, films, strict=True):
            metadata = {"prompt": prompt, "seed": str(seed)} | about
            print(save_png(film[-1], options.out, stem(prompt, seed), metadata))
            if options.animate:
                print(save_animation(film, options.out, stem(prompt, seed), options.animate))
            pictures.append(film[-1])
    if options.grid:
        columns = min(options.count, 8) if options.count > 1 else 4
        sheet = grid(pictures, columns, [prompt for prompt, _ in jobs])
        # not under "prompt": what says its prompt is one picture, whose settings the studio restores
        print(save_png(sheet, options.out, "grid", about | {"prompts": "\n".join(prompts), "seed": str(options.seed)}))


def split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Where the model is, and the words that are prompts. Tells where the first of several may be meant for a run.

    Raises:
        ValueError: one line, when there is no prompt, or the model that came with fromnoise is not there.
    """
    first = words[0] if words else ""
    # A prompt may be longer than a path can be, and Path.exists() raises on that.
    there = os.path.exists(first)  # noqa: PTH110
    # "a red/blue circle" is a prompt, and "runs/my run" a path.
    named = there or names_path(first.partition(" ")[0]) or first.endswith(".safetensors")
    prompts = list(words[1:] if named else words)
    if not prompts and named and not there:
        raise ValueError(f"no prompt is given: {first!r} is read as a path, and nothing is there; usage: {USAGE}")
    if not prompts:
        raise ValueError(f"no prompt is given; usage: {USAGE}")
    if len(words) > 1 and not named and first.split() == [first]:
        note = f"no run is at {first}, so it is drawn as a prompt, by the model that came with fromnoise"
        print(f"note: {note}", file=sys.stderr)
    return Path(first) if named else shipped(), prompts


def draw(pipeline: Pipeline, prompts: list[str], seed: int, options: Options) -> list[list[Image.Image]]:
    """For each prompt its picture after every step when it is to be animated, else the finished picture alone."""
    size = sides(options.size) if options.size else None
    steps = pipeline.stream(prompts, options.steps, options.guidance, seed, size, sampler=options.sampler)
    films: list[list[Image.Image]] = [[] for _ in prompts]
    last = None
    for last in steps:
        if options.animate:
            for film, picture in zip(films, pipeline.pictures(last.x), strict=True):
                film.append(picture)
    assert last is not None, "a sampler takes at least one step"
    if not options.animate:
        films = [[picture] for picture in pipeline.pictures(last.x)]
    return films
