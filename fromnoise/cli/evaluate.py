"""`fromnoise evaluate`: how often a model draws what the prompt asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.cli.sample import shipped
from fromnoise.core.config import Config

USAGE = "fromnoise evaluate [RUN] [--option VALUE ...]"
DESCRIPTION = """\
Draws pictures of many prompts about shapes, and checks each, from its pixels alone, against its prompt: the share of
them that are right, by task.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file; without it the model
that came with fromnoise is measured.
"""


class Options(Config):
    """What to measure. What is left out is as the model has it."""

    n: PositiveInt = 1000
    """Prompts, shared evenly by the tasks."""
    seed: NonNegativeInt = 0
    """Chooses the prompts and the noise."""
    steps: int | None = None
    """Steps from noise to picture, 1 to 1000."""
    guidance: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more follows it harder, up to 100."""
    batch: PositiveInt = 64
    """Pictures drawn together."""
    raw: bool = False
    """Measure the weights as trained, in place of their average."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    output: Literal["table", "json"] = "table"
    """How results are printed; --json is short for --output json."""


def main(args: Sequence[str]) -> None:
    args = ["--output=json" if arg == "--json" else arg for arg in args]
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) > 1:
        raise ValueError(f"{words[1]!r} is not expected here; usage: {USAGE}")
    from fromnoise.evaluation.adherence import evaluate
    from fromnoise.pipeline.load import load

    pipeline = load(words[0] if words else shipped(), raw=options.raw, device=options.device)
    with progress("judging") as advance:
        results = evaluate(
            pipeline,
            n=options.n,
            seed=options.seed,
            steps=options.steps,
            guidance=options.guidance,
            batch=options.batch,
            progress=advance,
        )
    print(json.dumps(results) if options.output == "json" else table(results))


def table(results: dict[str, dict[str, float]]) -> str:
    """The shares of right pictures in per cent, a line each, and how they were drawn."""
    lines = [f"{task.replace('_', ' '):<16}{100 * share:6.1f} %" for task, share in results["adherence"].items()]
    return "\n".join([*lines, ", ".join(f"{key} {value:g}" for key, value in results["drawing"].items())])
