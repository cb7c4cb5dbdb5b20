"""`fromnoise draw`: a public benchmark's prompts, drawn for its own judge to score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import kept, watch
from fromnoise.core.config import Config, Name, Seed
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.evaluation.prompts import SETS, read_set

USAGE = "fromnoise draw RUN [--set NAME] [--option VALUE ...]"
DESCRIPTION = """\
Draws the prompts of a public benchmark into GenEval's layout of directories (OUT/00000/metadata.jsonl,
samples/0000.png, grid.png), which the public judges read; OUT/drawn.json and the text within every PNG tell seeds,
settings and checkpoint.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file. The prompts are looked
for in $FROMNOISE_DATA/prompts, or where --path says. The same command again draws what is still missing.
"""


class Options(Config):
    """Which prompts, how to draw, and where to put it. What is left out is as the model has it."""

    set: Annotated[str, Name(SETS)] = "geneval"
    """Whose prompts."""
    path: Path | None = None
    """The published file of the prompts (of t2i-compbench the directory); left out, in $FROMNOISE_DATA/prompts."""
    count: PositiveInt = 4
    """Pictures of each prompt."""
    first: PositiveInt | None = None
    """Prompts drawn, from the first one on; left out, all."""
    seed: Seed = 0
    """Noise of the first picture; the next ones count on from it."""
    sampler: Annotated[str, Name(SAMPLERS)] | None = None
    """Name of the sampler."""
    steps: int | None = None
    """Steps from noise to picture, 1 to 1000."""
    guidance: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more follows it harder, up to 100."""
    out: Path | None = None
    """Directory for the pictures; left out, pictures/ and the names of the run and the set."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) != 1:
        raise ValueError(f"one run is wanted, {len(words)} words are given; usage: {USAGE}")
    place = Path(words[0])
    prompts = read_set(options.set, options.path)[: options.first]
    from fromnoise.core.files import content_hash
    from fromnoise.evaluation.gallery import draw_gallery
    from fromnoise.pipeline.load import load, weights

    pipeline = load(place, device=options.device)
    usual = pipeline.config.sampling
    how = {
        "set": options.set,
        "checkpoint": content_hash(weights(place)),
        "sampler": options.sampler or usual.sampler,
        "steps": options.steps or usual.steps,
        "guidance": usual.guidance if options.guidance is None else options.guidance,
        "interval": list(usual.interval),
        "shift": usual.shift,
    }
    out = options.out or Path("pictures") / f"{place.resolve().stem}-{options.set}"
    with kept(out), watch(f"{len(prompts):,} prompts of {options.set}, {options.count} pictures each") as progress:
        drawn = draw_gallery(
            pipeline,
            prompts,
            out,
            count=options.count,
            seed=options.seed,
            how=how,
            sampler=options.sampler,
            steps=options.steps,
            guidance=options.guidance,
            progress=progress,
        )
    print(f"{out}: {drawn:,} pictures drawn, {len(prompts) * options.count - drawn:,} were there")
