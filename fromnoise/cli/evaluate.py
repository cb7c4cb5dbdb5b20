"""`fromnoise evaluate`: how often a model draws what was asked for, and how far its digits lie from real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from fromnoise.cli import evaluate_vae
from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.cli.sample import shipped
from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.pipeline.pipeline import Pipeline

USAGE = "fromnoise evaluate [RUN] [--option VALUE ...]"
DESCRIPTION = """\
Draws pictures of many prompts, and judges each from its pixels alone. Of shapes: the share that are right, by task.
Of digits (a model of one channel): the share in which a frozen classifier sees the class asked for, and the Frechet
distance to the test digits beside its floor.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file; without it the model
that came with fromnoise is measured. Of a VAE's run, see fromnoise evaluate RUN --help.
"""


class Options(Config):
    """What to measure. What is left out is as the model has it."""

    n: PositiveInt = 1000
    """Prompts, shared evenly by the tasks, or by the classes of digits."""
    judge: Literal["auto", "shapes", "digits"] = "auto"
    """Who judges; auto takes digits for a model of one channel, and shapes otherwise."""
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
    if evaluate_vae.find(args):
        evaluate_vae.main(args)
        return
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) > 1:
        raise ValueError(f"{words[1]!r} is not expected here; usage: {USAGE}")
    from fromnoise.pipeline.load import load

    pipeline = load(words[0] if words else shipped(), raw=options.raw, device=options.device)
    digits = pipeline.config.channels == 1 if options.judge == "auto" else options.judge == "digits"
    results = (judge_digits if digits else judge_shapes)(pipeline, options)
    print(json.dumps(results) if options.output == "json" else table(results))


def judge_shapes(pipeline: Pipeline, options: Options) -> dict[str, Any]:
    """Adherence by task, and how the pictures were drawn."""
    from fromnoise.evaluation.adherence import evaluate

    with progress("judging") as advance:
        return evaluate(
            pipeline,
            n=options.n,
            seed=options.seed,
            steps=options.steps,
            guidance=options.guidance,
            batch=options.batch,
            progress=advance,
        )


def judge_digits(pipeline: Pipeline, options: Options) -> dict[str, Any]:
    """MNIST's protocol."""
    from fromnoise.data.config import MNISTConfig
    from fromnoise.evaluation import classifier, digits

    real = MNISTConfig().build(0)  # first: without it, nothing need be drawn

    with progress("drawing") as advance:
        drawn = digits.draw(
            pipeline,
            options.n,
            options.seed,
            steps=options.steps,
            guidance=options.guidance,
            batch=options.batch,
            progress=advance,
        )
    judge, _ = classifier.load()
    with progress("reading real digits") as advance:
        reference = digits.reference(judge, real, advance)
    return digits.measure(drawn, judge, reference)


def table(results: dict[str, Any]) -> str:
    """What was measured, a line each."""
    if "adherence" not in results:
        low, high = results["accuracy_interval"]
        return "\n".join(
            [
                f"{'samples':<16}{results['samples']:6}",
                f"{'accuracy':<16}{100 * results['accuracy']:6.2f} % ({100 * low:.2f} to {100 * high:.2f}, at 95 %)",
                f"{'frechet':<16}{results['frechet']:6.3f} (as many real digits: {results['frechet_floor']:.3f})",
                f"{'diversity':<16}{100 * results['diversity']:6.1f} % of that of real digits",
                f"{'speed':<16}{results['images_per_second']:6.1f} images/s",
            ]
        )
    lines = [f"{task.replace('_', ' '):<16}{100 * share:6.1f} %" for task, share in results["adherence"].items()]
    return "\n".join([*lines, ", ".join(f"{key} {value:g}" for key, value in results["drawing"].items())])
