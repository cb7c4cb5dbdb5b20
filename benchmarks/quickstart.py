"""`make quickstart` in a fresh clone, by the clock: what a newcomer gets, and how soon. One JSON record.

python -m benchmarks.quickstart
python -m benchmarks.quickstart --record quickstart_avx2   # on a machine of another kind, beside the first
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.harness import describe_machine, training_of, write_record

ROOT = Path(__file__).parent.parent


def measure() -> dict[str, object]:
    """Minutes of `make quickstart` in a clone of the last commit, and the adherence of the model that it trains."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "fromnoise"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        began = time.perf_counter()
        subprocess.run(["make", "quickstart"], cwd=clone, check=True)
        seconds = time.perf_counter() - began
        evaluate = [clone / ".venv/bin/fromnoise", "evaluate", "runs/shapes", "--json"]
        answer = subprocess.run(evaluate, cwd=clone, check=True, capture_output=True, text=True).stdout
        training = training_of(clone / "runs/shapes")
    return {**json.loads(answer), "minutes": round(seconds / 60, 2), "training": training}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", default="quickstart", help="name of the record; default: %(default)s")
    name = parser.parse_args().record
    command = "python -m benchmarks.quickstart" + ("" if name == parser.get_default("record") else f" --record {name}")
    path = Path(__file__).parent / "results" / f"{name}.json"
    begun = {"command": command, "machine": describe_machine()}  # before anything runs: it tells the load
    write_record(path, measure() | begun)
    print(path.read_text())
