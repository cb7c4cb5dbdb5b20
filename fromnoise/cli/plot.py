"""`fromnoise plot`: pictures of how a model works, as PNGs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, Seed, hint
from fromnoise.pipeline.place import shipped
from fromnoise.plots import KINDS
from fromnoise.recipes import RECIPES

USAGE = "fromnoise plot [RUN ...] [--kinds KIND,KIND] [--option VALUE ...]"
DESCRIPTION = """\
Draws pictures of how a model works, and prints the name of each file.

RUN is a run directory (its latest checkpoint), a checkpoint directory, a .safetensors file, or the name of a recipe,
for what needs no weights; without it the model that came with fromnoise is drawn.

kinds:
"""


class Options(Config):
    """What to draw, and where to put it."""

    kinds: str = ""
    """Kinds to draw, separated by commas; left out, all that there are for the run."""
    prompt: tuple[str, ...] = ()
    """Prompts (numbers or names, for a model of classes); left out, the run's previews."""
    seed: Seed = 0
    """Noise of the first picture; the next ones count on from it."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Steps from noise to picture; left out, the model's own, 50 at most."""
    toy: Literal["moons", "checkerboard", "gaussians"] = "moons"
    """Data of the toy."""
    out: Path = Path("plots")
    """Directory for the pictures; no file in it is ever overwritten."""
    dpi: Annotated[int, Field(ge=30, le=600)] = 150
    """Pixels to the inch."""
    raw: bool = False
    """Draw with the weights as trained, in place of their average."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


def main(args: Sequence[str]) -> None:
    listed = "\n".join(f"  {kind:<14}{summary}" for kind, summary in KINDS.items())
    options, places = parse(Options(), args, usage=USAGE, description=DESCRIPTION + listed)
    for prompt in options.prompt if not places else ():
        if prompt in RECIPES or os.path.exists(prompt):  # noqa: PTH110, a prompt may be longer than a path can be
            raise ValueError(f"--prompt takes {prompt!r} for a prompt, as all words after it: put RUN before --prompt")
    asked = chosen(options.kinds)
    from fromnoise.pipeline.pictures import save_png
    from fromnoise.plots.style import image, missing
    from fromnoise.plots.subject import Wish, find

    subjects = [find(place, raw=options.raw, device=options.device) for place in places or [shipped()]]
    wish = Wish(options.prompt, options.seed, options.steps, options.toy)
    jobs: list[tuple[Any, Any]] = []
    for subject in subjects:
        for kind in asked or KINDS:
            plot = import_module(f"fromnoise.plots.{kind}")
            if reason := plot.refusal(subject, wish):
                if asked:
                    raise ValueError(f"no {kind} of {subject.name}: {reason}")
                print(f"no {kind} of {subject.name}: {reason}", file=sys.stderr)
            else:
                jobs.append((plot, subject))
    lacked: set[str] = set()
    for plot, subject in jobs:
        for drawn in plot.draw(subject, wish):
            if letters := [letter for letter in missing(drawn.figure) if letter not in lacked]:
                lacked.update(letters)
                told = f"note: the font of plots lacks {''.join(letters)}: an empty box stands for each"
                print(told, file=sys.stderr, flush=True)
            print(save_png(image(drawn.figure, options.dpi), options.out, drawn.stem, drawn.metadata), flush=True)


def chosen(kinds: str) -> list[str]:
    """The kinds named in `kinds`, each once.

    Raises:
        ValueError: one line, for a kind that is not there; the nearest is named.
    """
    names = list(dict.fromkeys(name.strip() for name in kinds.split(",") if name.strip()))
    for name in names:
        if name not in KINDS:
            raise ValueError(f"unknown kind {name!r}; {hint(name, KINDS)}")
    return names
