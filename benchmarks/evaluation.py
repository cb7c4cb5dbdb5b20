"""`fromnoise evaluate` on a trained run, on record: one JSON, and the table that docs/evaluate.md shows.

python -m benchmarks.evaluation runs/mnist
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import describe_machine, put, run_main, write_record
from fromnoise.cli.progress import watch
from fromnoise.evaluation.subject import Subject
from fromnoise.evaluation.table import table
from fromnoise.evaluation.wanted import Wanted
from fromnoise.evaluation.whole import measured

ROOT = Path(__file__).parent.parent


def main(args: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs/images")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/evaluate.md")
    given = parser.parse_args(args)
    subject = Subject(given.run, Wanted(samples=given.samples), watch)
    began = time.monotonic()
    results = measured(subject)
    record = {
        "command": f"python -m benchmarks.evaluation {shlex.join(args)}",
        "machine": describe_machine(),
        "seconds": round(time.monotonic() - began, 1),
        "table": table(results, subject.domain),
        **results,
    }
    name = given.run.resolve().name
    write_record(given.results / f"evaluation_{name}.json", record)
    if "neighbours" in results:
        shutil.copy(given.run / results["neighbours"]["sheet"], given.pictures / f"evaluation_{name}.png")
    put(f"```\n{record['table']}\n```", given.page)


if __name__ == "__main__":
    run_main(main)
