"""How often a trained model draws what the prompt asks for, with what it took to train it: one JSON record.

python -m benchmarks.adherence runs/shipped shapes

The name is that of the record, and of its place in docs/judging.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import describe_machine, put, training_of, write_record
from fromnoise.core.config import read_yaml
from fromnoise.core.files import content_hash
from fromnoise.evaluation.adherence_table import adherence_lines
from fromnoise.evaluation.judges.adherence import draw_prompts, evaluate
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run

ROOT = Path(__file__).parent.parent


def command_of(place: Path) -> str:
    """What trains the run in `place` again."""
    run = read_yaml(Run, place / "run.yaml")
    return f"{run.recipe} --training.steps {run.training.steps} --directory {place.parent.name}/{place.name}"


def in_batches(pipeline: Pipeline) -> dict[str, int]:
    """Of 64 pictures, how many are other bits when they are drawn in batches of so many, in place of all at once."""
    prompts = [prompt.text for some in draw_prompts(1000, 0).values() for prompt in some][:64]
    whole = [picture.tobytes() for picture in pipeline(prompts)]
    changed = {}
    for batch in (1, 8, 24):
        parts = [pipeline(prompts[i : i + batch], seed=i) for i in range(0, 64, batch)]
        again = [picture.tobytes() for part in parts for picture in part]
        changed[str(batch)] = sum(a != b for a, b in zip(whole, again, strict=True))
    return changed


def tell(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="", file=sys.stderr)


def measure(place: str) -> dict[str, object]:
    """Adherence over 1,000 prompts of the model in the run directory `place`, and the training that made it."""
    pipeline = load(place)
    return {
        "training": {
            "command": "fromnoise train " + command_of(Path(place)),
            **training_of(Path(place)),
            "choices": (Path(place) / "measured.yaml").read_text(),
        },
        "parameters": sum(p.numel() for p in pipeline.parameters()),
        "sha256": content_hash(weights(place)),
        "pictures_that_change": in_batches(pipeline),
        **evaluate(pipeline, n=1000, progress=tell, sheets=ROOT / "docs/images/shapes"),
    }


def told(record: dict[str, Any]) -> str:
    """What docs/judging.md says of a record, as Markdown."""
    lines = "\n".join(adherence_lines(record))
    return f"`{record['command']}` says of the model that ships:\n\n```text\n{lines}\n```"


if __name__ == "__main__":
    place, name = sys.argv[1:]
    path = ROOT / "benchmarks/results" / f"{name}.json"
    command = f"python -m benchmarks.adherence {place} {name}"
    record = {"command": command, "machine": describe_machine(), **measure(place)}
    write_record(path, record)
    put(told(record), ROOT / "docs/judging.md", name)
    print(path.read_text())
