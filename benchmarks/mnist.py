"""MNIST's protocol on trained runs: 10,000 digits each, what the judge sees, and what the training took. One JSON each.

python -m benchmarks.mnist runs/x0 runs/sd3 ...
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import describe_machine, put, run_main, write_record
from fromnoise.core.config import read_yaml
from fromnoise.core.files import content_hash, read_lines
from fromnoise.evaluation import cost
from fromnoise.evaluation.judges import classifier, protocol
from fromnoise.evaluation.judges.classifier import Domain
from fromnoise.evaluation.judges.domains import DIGITS
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pictures import as_pictures, grid
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run, read_run

ROOT = Path(__file__).parent.parent
REPAID = 1000  # digits whose drawing repays half a minute of compilation
SHOWN = 40  # pictures of the grid beside the numbers, four of each class


def trained(directory: Path) -> dict[str, object]:
    """What the training of a run took, and its last validation loss, by its metrics.jsonl."""
    lines = read_lines(directory / "metrics.jsonl")
    last = [line for line in lines if "seconds" in line][-1]
    losses = [line for line in lines if "validation_ema" in line]
    run = read_run(directory / "run.yaml")
    return {
        "steps": last["step"],
        "images": last["step"] * run.training.batch,
        "seconds": round(last["seconds"]),
        "validation": [
            {"images": line["step"] * run.training.batch, "ema": line["validation_ema"], "raw": line["validation_raw"]}
            for line in losses
        ],
    }


def told(done: int, total: int) -> None:
    """One line now and then, of work that takes minutes."""
    print(f"{done:,} of {total:,} pictures drawn", file=sys.stderr, flush=True)


def parser_of(about: str | None, count: int) -> argparse.ArgumentParser:
    """What the protocols of labelled pictures are asked for; `count` pictures of each run where nothing is said."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--sampler", help="left out, as the run has it, like the two below")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs/images")
    return parser


def draw(domain: Domain, pipeline: Pipeline, given: argparse.Namespace) -> tuple[protocol.Drawn, dict[str, Any]]:
    """The pictures that are asked for, and how they were drawn."""
    asked = {"sampler": given.sampler, "steps": given.steps, "guidance": given.guidance}
    with pipeline.compiled(given.count >= REPAID):
        drawn = protocol.draw(domain, pipeline, given.count, progress=told, **asked)
    usual = pipeline.config.sampling.model_dump(mode="json")
    return drawn, usual | {key: value for key, value in asked.items() if value is not None}


def table(results: Path) -> str:
    """A row for every record there is, as Markdown."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("mnist_*.json"))]
    lines = [
        "| recipe | parameters | MFLOP a sample | digits seen | seconds | validation loss "
        "| drawn | accuracy | Frechet (floor) | from the floor | diversity |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in (record for record in records if "training" in record):
        low, high = (100 * share for share in record["accuracy_interval"])
        accuracy = f"{100 * record['accuracy']:.1f} % ({low:.1f} to {high:.1f})"
        training, distance, floor = record["training"], record["frechet"], record["frechet_floor"]
        cells = (
            record["recipe"],
            f"{record['parameters'] / 1e6:.2f}M",
            f"{record['flops'] / 1e6:.0f}",
            f"{training['images']:,}",
            f"{training['seconds']}",
            f"{training['validation'][-1]['ema']:.4f}",
            f"{record['samples']:,}",
            accuracy if record["conditional"] else "any digit",
            f"{distance:.3f} ({floor:.3f})",
            f"{distance / floor:.1f} times",
            f"{100 * record['diversity']:.0f} %",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(args: Sequence[str]) -> None:
    parser = parser_of(__doc__, 10_000)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/mnist.md")
    given = parser.parse_args(args)
    judge, known = classifier.load(DIGITS)
    real = protocol.reference(judge, DIGITS.published())
    for directory in given.runs:
        run = read_yaml(Run, directory / "run.yaml")
        pipeline = load(directory)
        drawn, sampling = draw(DIGITS, pipeline, given)
        record = {
            "recipe": run.recipe,
            "conditional": run.model.conditioner.type != "none",
            "command": f"python -m benchmarks.mnist {shlex.join(args)}",
            "training_command": f"fromnoise train {run.recipe} --directory runs/{directory.name}",
            "machine": describe_machine(),
            "parameters": cost.parameters(pipeline),
            "flops": cost.flops(pipeline),
            "checkpoint": content_hash(weights(directory)),
            "judge": {"sha256": content_hash(DIGITS.asset), "seed": known["seed"], "accuracy": known["accuracy"]},
            "sampling": sampling,
            "training": trained(directory),
            **protocol.measure(drawn, judge, real),
        }
        write_record(given.results / f"mnist_{run.recipe}.json", record)
        grid(as_pictures(drawn.images[:SHOWN]), 10).save(given.pictures / f"mnist_{run.recipe}.png")
        put(table(given.results), given.page)
        print(run.recipe, {key: record[key] for key in ("accuracy", "frechet", "frechet_floor", "diversity")})


if __name__ == "__main__":
    run_main(main)
