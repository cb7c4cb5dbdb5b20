"""A sweep over ways to draw, as one JSON record, and its page as a picture for the docs.

python -m benchmarks.sweep runs/shapes shapes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.harness import describe_machine, put, write_record
from fromnoise.cli.progress import say, watch
from fromnoise.evaluation.comparison.asked import SweepAsked
from fromnoise.evaluation.comparison.sweep import sweep
from fromnoise.evaluation.judges import adherence
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load, weights

AGAIN = 150
ROOT = Path(__file__).parent.parent
ASKED = SweepAsked(guidances=(1.0, 2.0, 3.0, 4.5), steps=(6, 12, 24), intervals=("0-0.8", "0-1"), samples=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    given = parser.parse_args()
    machine = describe_machine()
    sweep(given.run, ASKED, say, watch)
    results = json.loads((given.run / "sweep.json").read_text())
    named = {name: results["points"][results[name]] for name in ("usual", "best", "chosen")}
    path = ROOT / "benchmarks/results" / f"sweep_{given.name}.json"
    command = f"python -m benchmarks.sweep {given.run} {given.name}"
    record = {"command": command, **results, "machine": machine, "named": named}
    record["again"] = {name: again(given.run, named[name]) for name in ("usual", "chosen")}
    write_record(path, record)
    put(table(record), ROOT / "docs/sweep.md", given.name)


def again(run: Path, point: dict[str, Any]) -> dict[str, Any]:
    """A setting judged on prompts and noise that it was not chosen by."""
    pipeline = load(weights(run))
    pipeline.draw_as(Sampling.model_validate({name: point[name] for name in Sampling.model_fields}))
    with watch(f"again: {pipeline.config.sampling.words()}") as progress:
        found = adherence.evaluate(pipeline, AGAIN, seed=100_000, progress=progress)
    return {"prompts": AGAIN, "overall": found["adherence"]["overall"], "interval": found["intervals"]["overall"]}


def shown(share: float, interval: list[float]) -> str:
    return f"{100 * share:.1f} % ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def table(record: dict[str, Any]) -> str:
    """What the setting of the training, the best and the chosen one reach, as Markdown."""
    head = ["", "sampler", "steps", "guidance", "where t is", "accuracy", f"on {AGAIN} other prompts", "ms a picture"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    words = {"usual": "as trained", "best": "best", "chosen": "chosen"}
    for name, point in record["named"].items():
        accuracy, other = shown(point["accuracy"], point["accuracy_interval"]), record["again"].get(name)
        where = f"{point['interval'][0]:g} to {point['interval'][1]:g}"
        cells = [words[name], point["sampler"], str(point["steps"]), f"{point['guidance']:g}", where, accuracy]
        cells += [shown(other["overall"], other["interval"]) if other else "", f"{1000 * point['seconds']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
