"""`fromnoise evaluate`: how often a model draws what was asked for, and how far its digits lie from real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from fromnoise.cli import evaluate_vae
from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.cli.sample import shipped
from fromnoise.core.config import Config
from fromnoise.evaluation.adherence_table import adherence_lines
from fromnoise.evaluation.asked import Judged

if TYPE_CHECKING:
    from fromnoise.evaluation.classifier import Domain
    from fromnoise.pipeline.pipeline import Pipeline

USAGE = "fromnoise evaluate [RUN] [--option VALUE ...]"
DESCRIPTION = """\
Draws pictures of many prompts, and judges each from its pixels alone. Of shapes: the share that are right, by task.
Of MNIST's digits and CIFAR-10's photographs: the share in which a frozen classifier sees the class asked for, of all
and of each class, and the Frechet distance to real pictures beside its floor.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file; without it the model
that came with fromnoise is measured. Of a VAE's run, see fromnoise evaluate RUN --help.
"""


class Options(Config):
    """What to measure. What is left out is as the model has it."""

    n: PositiveInt = 1000
    """Prompts, shared evenly by the tasks, or by the classes."""
    judge: Judged = "auto"
    """Whose pictures are expected; auto goes by the data of the run, and of weights without a run takes mnist for one
    channel, shapes otherwise."""
    seed: NonNegativeInt = 0
    """Chooses the prompts and the noise."""
    steps: int | None = None
    """Steps from noise to picture, 1 to 1000."""
    guidance: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more follows it harder, up to 100."""
    batch: PositiveInt = 64
    """Pictures drawn together."""
    sheets: Path | None = None
    """Of shapes: directory for failures.png and disputed.png, on which the two judges part."""
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
    from fromnoise.evaluation.domains import DOMAINS
    from fromnoise.pipeline.load import load

    place = words[0] if words else shipped()
    pipeline = load(place, raw=options.raw, device=options.device)
    kind = expected(place, pipeline) if options.judge == "auto" else options.judge
    results = judge_classes(pipeline, DOMAINS[kind], options) if kind in DOMAINS else judge_shapes(pipeline, options)
    print(json.dumps(results) if options.output == "json" else table(results, DOMAINS.get(kind)))


def expected(place: str | Path, pipeline: Pipeline) -> str:
    """Whose pictures the model in `place` is expected to draw.

    Raises:
        ValueError: one line, when its run was trained on data that have no judge.
    """
    from fromnoise.evaluation.judge import JUDGED, kind_of
    from fromnoise.pipeline.load import weights
    from fromnoise.training.directory import run_of

    run = run_of(weights(place))
    if run is None:
        return "mnist" if pipeline.config.channels == 1 else "shapes"
    kind = kind_of(run.data)
    if kind not in JUDGED:
        raise ValueError(f"there is no judge of {kind} data; allowed: --judge {', '.join(JUDGED)}, where it is like it")
    return kind


def judge_shapes(pipeline: Pipeline, options: Options) -> dict[str, Any]:
    """Adherence by task, what was drawn instead, and what the second judge makes of it."""
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
            sheets=options.sheets,
        )


def judge_classes(pipeline: Pipeline, domain: Domain, options: Options) -> dict[str, Any]:
    """The protocol of labelled pictures."""
    from fromnoise.evaluation import classifier, protocol

    real = domain.published()  # first: without it, nothing need be drawn
    judge, _ = classifier.load(domain)
    with progress("drawing") as advance:
        drawn = protocol.draw(
            domain,
            pipeline,
            options.n,
            options.seed,
            steps=options.steps,
            guidance=options.guidance,
            batch=options.batch,
            progress=advance,
        )
    with progress(f"reading real {domain.name}") as advance:
        reference = protocol.reference(judge, real, advance)
    return protocol.measure(drawn, judge, reference)


def table(results: dict[str, Any], domain: Domain | None) -> str:
    """What was measured, a line each."""
    if domain:
        low, high = results["accuracy_interval"]
        floor = f"as many real {domain.name}: {results['frechet_floor']:.3f}"
        by_class = zip(domain.classes, results["by_class"], strict=False)  # of fewer pictures than classes: of some
        return "\n".join(
            [
                f"{'samples':<16}{results['samples']:6}",
                f"{'accuracy':<16}{100 * results['accuracy']:6.2f} % ({100 * low:.2f} to {100 * high:.2f}, at 95 %)",
                *(f"  {name:<14}{100 * share:6.1f} %" for name, share in by_class),
                f"{'frechet':<16}{results['frechet']:6.3f} ({floor})",
                f"{'diversity':<16}{100 * results['diversity']:6.1f} % of that of real {domain.name}",
                f"{'speed':<16}{results['images_per_second']:6.1f} images/s",
            ]
        )
    return "\n".join(adherence_lines(results))
