"""A sweep over ways to draw, as one JSON record, and its page as a picture for the docs.

python -m benchmarks.sweep runs/shapes shapes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.harness import describe_machine, write_record
from fromnoise.cli.progress import say, watch
from fromnoise.evaluation.asked import SweepAsked
from fromnoise.evaluation.sweep import sweep

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
    path = Path(__file__).parent / "results" / f"sweep_{given.name}.json"
    command = f"python -m benchmarks.sweep {given.run} {given.name}"
    write_record(path, {"command": command, **results, "machine": machine, "named": named})


if __name__ == "__main__":
    main()
