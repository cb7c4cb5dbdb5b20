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
from fromnoise.evaluation.asked import SweepAsked
from fromnoise.evaluation.sweep import sweep

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
    write_record(path, record)
    put(table(record), ROOT / "docs/sweep.md", given.name)


def table(record: dict[str, Any]) -> str:
    """What the setting of the training, the best and the chosen one reach, as Markdown."""
    lines = ["| | sampler | steps | guidance | where t is | accuracy | ms a picture |", "|---|---|---|---|---|---|---|"]
    words = {"usual": "as trained", "best": "best", "chosen": "chosen"}
    for name, point in record["named"].items():
        low, high = point["accuracy_interval"]
        accuracy = f"{100 * point['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        where = f"{point['interval'][0]:g} to {point['interval'][1]:g}"
        cells = [words[name], point["sampler"], str(point["steps"]), f"{point['guidance']:g}", where, accuracy]
        cells.append(f"{1000 * point['seconds']:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
