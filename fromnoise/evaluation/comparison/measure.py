"""What is measured of every run of a comparison, each part kept in a file of its own.

A part is known by the hash of the checkpoint and the settings it was measured with: what was stopped goes on at the
part it was at, what is done is read, and what has changed is measured anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from fromnoise.core.config import read_yaml
from fromnoise.core.device import pick
from fromnoise.core.files import content_hash, read_object, write_text
from fromnoise.core.types import Data
from fromnoise.evaluation.comparison.asked import Asked
from fromnoise.evaluation.denoising import denoising
from fromnoise.evaluation.judges.judge import Judge, Progress, prompts_of
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pictures import as_png
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.log import read_metrics
from fromnoise.training.run import Run

Watch = Callable[[str], AbstractContextManager[Progress]]
"""Called with what begins; the context gives what is to be called with (done, total)."""

ROWS = 4  # of pictures of each run
SWEEP_STEPS = 50  # most steps of a picture of the guidance sweep
VERSION = 1  # of what is kept; what another version kept is measured anew
HELD = 4  # models in memory


class Part(NamedTuple):
    """One thing to measure of every run."""

    name: str
    settings: dict[str, Any]  # what its result hangs on
    work: Callable[[Pipeline, Progress], dict[str, Any]]
    guided: bool = False  # only of models that are told what to draw


def measure(
    places: dict[tuple[str, int], Path], root: Path, asked: Asked, data: Data, judge: Judge, watch: Watch
) -> dict[tuple[str, int], dict[str, Any]]:
    """All parts of every run, by name and seed. Runs take turns, so that a busy hour slows no one of them alone."""
    device = str(pick(asked.device))

    @lru_cache(maxsize=HELD)
    def hold(place: Path) -> Pipeline:
        pipeline = load(weights(place), device=device)  # which draws as its recipe does, whatever a sweep has chosen
        pipeline.told.add(pipeline.conditioner.notice(["a prompt"]))  # the report says what each of them reads
        return pipeline

    found: dict[tuple[str, int], dict[str, Any]] = {}
    unprompted: set[tuple[str, int]] = set()
    for (name, seed), place in places.items():
        checkpoint = content_hash(weights(place))
        found[name, seed] = {"name": name, "seed": seed, "directory": str(place), "checkpoint": checkpoint}
        found[name, seed] |= learned(place)
        if read_yaml(Run, place / "run.yaml").model.conditioner.type == "none":
            unprompted.add((name, seed))
    for part in parts(asked, data, judge):
        for (name, seed), place in places.items():
            if part.guided and (name, seed) in unprompted:
                continue
            run = f"{name}-seed{seed}"
            key = {"version": VERSION, "checkpoint": found[name, seed]["checkpoint"], "device": device, **part.settings}

            def work(part: Part = part, place: Path = place, run: str = run) -> dict[str, Any]:
                pipeline = hold(place)
                with watch(f"{run}: {part.name}") as progress:
                    return part.work(pipeline, progress)

            found[name, seed][part.name] = kept(root / run / f"{part.name.replace(' ', '-')}.json", key, work)
    for run in found.values():
        for series in ("steps", "guidance"):
            names = [name for name in run if name.startswith(f"{series} ")]
            run[f"by_{series}"] = [run.pop(name) for name in names]
    return found


def parts(asked: Asked, data: Data, judge: Judge) -> list[Part]:
    """What is measured, in this order: what shows soonest whether a model is any good comes first."""

    def pictures(pipeline: Pipeline, progress: Progress) -> dict[str, Any]:
        return {"png": strip(pipeline, data, asked.seed, asked.steps, None, ROWS)}

    def quality(pipeline: Pipeline, progress: Progress) -> dict[str, Any]:
        return judge.measure(pipeline, asked.samples, asked.seed, asked.steps, None, progress)

    def at_steps(steps: int) -> Part:
        def work(pipeline: Pipeline, progress: Progress) -> dict[str, Any]:
            return {"steps": steps} | judge.measure(pipeline, asked.sweep, asked.seed, steps, None, progress)

        return Part(f"steps {steps}", judged | {"samples": asked.sweep, "steps": steps}, work)

    def at_guidance(guidance: float) -> Part:
        def work(pipeline: Pipeline, progress: Progress) -> dict[str, Any]:
            steps = asked.steps or min(pipeline.config.sampling.steps, SWEEP_STEPS)
            found = judge.measure(pipeline, asked.sweep, asked.seed, steps, guidance, progress)
            png = strip(pipeline, data, asked.seed, steps, guidance, 1)
            return {"guidance": guidance, "steps": steps, **found, "png": png}

        settings = judged | {"samples": asked.sweep, "guidance": guidance, "steps": asked.steps}
        return Part(f"guidance {guidance:g}", settings, work, guided=True)

    judged = {"judge": judge.identity, "seed": asked.seed}
    return [
        Part("pictures", {"seed": asked.seed, "steps": asked.steps, "rows": ROWS}, pictures),
        Part("denoising", {}, lambda pipeline, progress: denoising(pipeline, data, progress)),
        Part("quality", judged | {"samples": asked.samples, "steps": asked.steps}, quality),
        *map(at_guidance, asked.guidances),
        *map(at_steps, asked.speeds),
    ]


def kept(file: Path, key: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `file` holds, where it was measured under the same key; else the result of `work`, kept there."""
    if file.is_file():
        try:
            record = _record(file)
        except ValueError as error:
            raise ValueError(f"{error}; remove it, and that part is measured anew") from None
        if record["key"] == key:
            return record["found"]
    found = work()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"key": key, "found": found}))
    return found


def _record(file: Path) -> dict[str, Any]:
    record = read_object(file)
    if "key" not in record or not isinstance(record.get("found"), dict):
        raise ValueError(f"{file} is damaged: it does not hold key and found")
    return record


def learned(place: Path) -> dict[str, Any]:
    """The losses that the training in `place` told of, in metrics.jsonl; ValueError in one line where there are none,
    or it is damaged."""
    file = place / "metrics.jsonl"
    lines = read_metrics(file)
    losses = [line for line in lines if "loss" in line]
    validated = [line for line in lines if "validation_raw" in line]
    if not losses or not validated:
        raise ValueError(f"{file} tells of no {'validation ' if losses else ''}losses")
    return {
        "seconds": losses[-1]["seconds"],
        "training": {"step": [line["step"] for line in losses], "loss": [line["loss"] for line in losses]},
        "validation": {
            "step": [line["step"] for line in validated],
            "raw": [line["validation_raw"] for line in validated],
            "ema": [line["validation_ema"] for line in validated],
            "raw_by_time": validated[-1]["validation_raw_by_time"],
            "ema_by_time": validated[-1]["validation_ema_by_time"],
        },
    }


def strip(pipeline: Pipeline, data: Data, seed: int, steps: int | None, guidance: float | None, rows: int) -> str:
    """Pictures of the same prompts from the same noise, a column for each prompt: a PNG in base64."""
    prompts, labels = prompts_of(data)
    images = pipeline([*prompts] * rows, steps, guidance, seed, labels=[*labels] * rows)
    width, height = images[0].size
    sheet = Image.new("RGB", (len(prompts) * (width + 1) - 1, rows * (height + 1) - 1), "white")
    for i, image in enumerate(images):
        sheet.paste(image.convert("RGB"), (i % len(prompts) * (width + 1), i // len(prompts) * (height + 1)))
    return base64.b64encode(as_png(sheet)).decode()
