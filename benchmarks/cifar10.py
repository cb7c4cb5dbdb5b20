"""CIFAR-10's protocol on trained runs: what the judge sees in 5,000 drawn photographs, or in a VAE's reconstructions of
held-out ones, and what the training took. One JSON each.

python -m benchmarks.cifar10 runs/vae-small runs/phase5 ...
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import describe_machine, run_main, write_record
from benchmarks.mnist import draw, parser_of, trained
from fromnoise.core.files import content_hash
from fromnoise.data.labelled import scaled
from fromnoise.evaluation import cost, reconstruction
from fromnoise.evaluation.judges import classifier, protocol
from fromnoise.evaluation.judges.domains import PHOTOS
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pictures import as_pictures, grid
from fromnoise.recipes import all_recipes
from fromnoise.space.latent import LatentSpace
from fromnoise.training.directory import differences
from fromnoise.training.run import Run, VAERun, read_run

DERIVED = ("data.sha256", "model.size", "model.space.shift", "model.space.scale")  # filled in as a training begins
RECONSTRUCTED = 1000  # held-out photographs
SHOWN = 40  # pictures of the grid beside the numbers, four of each class


def changes(run: Run | VAERun) -> str:
    """The flags that make the recipe this run, each with a space behind it."""
    recipe = all_recipes()[run.recipe]()
    changed = (flag for flag in differences(recipe, run) if flag[0] not in DERIVED)
    return "".join(f"--{key} {value} " for key, _, value in changed)


def of_vae(directory: Path, run: VAERun, judge: classifier.Classifier) -> dict[str, Any]:
    """How near reconstructions come, and the share of them in which the judge sees the class of the photograph."""
    found = reconstruction.evaluate(run, directory, n=RECONSTRUCTED)
    images, labels = (part[:RECONSTRUCTED] for part in PHOTOS.published().pictures("validation"))
    space = LatentSpace(directory / "vae", (0.0,), (1.0,))
    mean = space.encode(scaled(images))[:, : space.channels]  # (N, Z, h, w)
    seen = {"photographs": scaled(images), "reconstructions": space.decode(mean)}
    recognised = {
        what: (judge.classify(pictures).logits.argmax(1) == labels).double().mean().item()
        for what, pictures in seen.items()
    }
    return {"latent_channels": run.model.vae.latent_channels, **found, "recognised": recognised}


def of_pipeline(
    directory: Path, judge: classifier.Classifier, real: protocol.Reference, given: argparse.Namespace
) -> dict[str, Any]:
    """What the judge sees in drawn photographs; their grid is written, too."""
    pipeline = load(directory)
    drawn, sampling = draw(PHOTOS, pipeline, given)
    grid(as_pictures(drawn.images[:SHOWN]), 10).save(given.pictures / f"cifar10_{directory.name}.png")
    return {
        "parameters": cost.parameters(pipeline),
        "flops": cost.flops(pipeline),
        "sampling": sampling,
        **protocol.measure(drawn, judge, real),
    }


def main(args: Sequence[str]) -> None:
    given = parser_of(__doc__, 5000).parse_args(args)
    judge, known = classifier.load(PHOTOS)
    for directory in given.runs:
        run = read_run(directory / "run.yaml")
        if isinstance(run, VAERun):
            found = of_vae(directory, run, judge)
        else:
            found = of_pipeline(directory, judge, protocol.reference(judge, PHOTOS.published()), given)
        record = {
            "recipe": run.recipe,
            "command": f"python -m benchmarks.cifar10 {shlex.join(args)}",
            "training_command": f"fromnoise train {run.recipe} {changes(run)}--directory runs/{directory.name}",
            "machine": describe_machine(),
            "checkpoint": content_hash(weights(directory)),
            "judge": {"sha256": content_hash(PHOTOS.asset), "seed": known["seed"], "accuracy": known["accuracy"]},
            "training": trained(directory),
            **found,
        }
        write_record(given.results / f"cifar10_{directory.name}.json", record)
        print(directory.name, {key: value for key, value in found.items() if isinstance(value, float)})


if __name__ == "__main__":
    run_main(main)
