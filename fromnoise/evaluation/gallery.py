"""Pictures of a benchmark's prompts in GenEval's layout of directories, for the public judges to score.

OUT/00000/metadata.jsonl holds what the benchmark says of prompt 0, samples/0000.png ... its pictures, grid.png all of
them on one sheet; OUT/drawn.json tells how everything was drawn. What is there already is not drawn again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.core.files import write_bytes, write_text
from fromnoise.evaluation.prompts import Metadata
from fromnoise.pipeline.pictures import as_png
from fromnoise.pipeline.pipeline import Pipeline

RECORD = "drawn.json"
TOGETHER = 64  # pictures drawn together


def draw_gallery(
    pipeline: Pipeline,
    prompts: Sequence[Metadata],
    out: Path,
    *,
    count: int,
    seed: int,
    how: dict[str, Any],
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Draw `count` pictures of each prompt, picture j of prompt i from the noise of seed + i `count` + j; returns how
    many were drawn now.

    how: what decides the pictures beside all this, kept in the record; another record in `out` is refused.

    Raises:
        ValueError: one line, when `out` holds other pictures, or cannot be written.
    """
    texts = [one["prompt"] for one in prompts]
    pipeline.conditioner.labels(texts)  # what is wrong with the last prompt is told before the first is drawn
    claim(out, {**how, "count": count, "seed": seed})
    group = max(1, TOGETHER // count)  # prompts drawn together
    drawn = 0
    for first in range(0, len(texts), group):
        members = range(first, min(first + group, len(texts)))
        missing = [i for i in members if not complete(out / f"{i:05}", prompts[i], count)]
        if missing:
            asked = [texts[i] for i in members for _ in range(count)]
            images = pipeline(asked, steps, guidance, seed + first * count, sampler=sampler)
            for k, i in enumerate(members):
                own = images[k * count : (k + 1) * count]
                told = {key: str(value) for key, value in how.items()} | {"prompt": texts[i]}
                write_prompt(out / f"{i:05}", prompts[i], own, told, seed + i * count)
            drawn += len(asked)
        progress(members[-1] + 1, len(texts))
    return drawn


def claim(out: Path, record: dict[str, Any]) -> None:
    """Make `out` the place of what `record` tells of; ValueError in one line when it holds something else."""
    path = out / RECORD
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        key = next((key for key in record if there.get(key) != record[key]), None)
        if key:
            raise ValueError(
                f"{out} holds pictures drawn otherwise: {key} is {there.get(key)!r} there, {record[key]!r} here; "
                f"choose another directory"
            )
        return
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(f"{out} holds files but no {RECORD}; choose a new or an empty directory")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")


def complete(place: Path, metadata: Metadata, count: int) -> bool:
    """Whether all of a prompt is there; ValueError in one line where another one is."""
    if (place / "metadata.jsonl").is_file():
        there = json.loads((place / "metadata.jsonl").read_text(encoding="utf-8"))
        if there != metadata:
            raise ValueError(f"{place} holds pictures of another prompt, {there['prompt']!r}; choose another directory")
    return (place / "grid.png").is_file() and all((place / "samples" / f"{j:04}.png").is_file() for j in range(count))


def write_prompt(
    place: Path, metadata: Metadata, images: Sequence[Image.Image], told: dict[str, str], seed: int
) -> None:
    """Everything of one prompt; picture j is of `seed` + j."""
    (place / "samples").mkdir(parents=True, exist_ok=True)
    write_text(place / "metadata.jsonl", json.dumps(metadata) + "\n")
    for j, image in enumerate(images):
        write_bytes(place / "samples" / f"{j:04}.png", as_png(image.convert("RGB"), told | {"seed": str(seed + j)}))
    write_bytes(place / "grid.png", as_png(sheet(images)))


def sheet(images: Sequence[Image.Image]) -> Image.Image:
    """The pictures pixel by pixel, row by row, in a square or nearly one, with nothing between them."""
    columns = math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    whole = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height), "black")
    for i, image in enumerate(images):
        whole.paste(image.convert("RGB"), (i % columns * width, i // columns * height))
    return whole
