"""Two recipes from nothing, by the package's own loop: what they draw, and what judges say of it."""

from __future__ import annotations

import shlex
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.notes import Notes
from benchmarks.gpu.settings import Settings
from fromnoise.cli.flags import parse
from fromnoise.core.files import read_lines, write_bytes
from fromnoise.data import mnist
from fromnoise.data.published import folder
from fromnoise.evaluation.intervals import wilson
from fromnoise.evaluation.judges import adherence, classifier, protocol
from fromnoise.evaluation.judges.domains import DIGITS
from fromnoise.pipeline.pictures import as_pictures, as_png, grid
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes import named
from fromnoise.training.loop import train
from fromnoise.training.run import Run

SHOWN_SHAPES, SHOWN_DIGITS = 32, 40
SPARE = 0.9  # share of the seconds that is planned for steps: validation and previews take the rest

Judge = Callable[[Pipeline, Settings], dict[str, Any]]
"""Writes a grid of pictures beside the record, and tells what was judged."""


def measure(settings: Settings, notes: Notes) -> None:
    """Shapes, then digits where they are."""
    s = settings.recipes
    asked: list[tuple[str, float, str, Judge]] = [
        ("shapes", s.shapes, s.shapes_flags, judge_shapes),
        ("mnist", s.mnist, s.mnist_flags, judge_digits),
    ]
    for name, seconds, flags, judge in asked:
        if not seconds:
            notes.leave_out(name, "no seconds are given to it")
        elif name == "mnist" and not digits_are_here():
            notes.leave_out(name, f"{folder(None, name)} holds no {name}")
        elif notes.time_for(name, seconds):
            notes.attempt(name, partial(learn, name, seconds, flags, judge, settings, notes))


def digits_are_here() -> bool:
    """Whether they need not be downloaded."""
    return all((folder(None, "mnist") / file).is_file() for file in mnist.MD5)


def learn(name: str, seconds: float, flags: str, judge: Judge, settings: Settings, notes: Notes) -> None:
    """Train for about so many seconds, as many steps as a pilot says; then draw and judge."""
    run = changed(name, flags, settings.device)
    pilot = settings.recipes.pilot
    with tempfile.TemporaryDirectory() as place:
        train(of_steps(run, pilot), Path(place) / "pilot")
        pace = pace_of(Path(place) / "pilot")["step_seconds"]
        steps = max(pilot, int(SPARE * seconds / pace))
        pipeline = train(of_steps(run, steps), Path(place) / name)
        told: dict[str, Any] = {"steps": steps, "parameters": sum(p.numel() for p in pipeline.parameters())}
        told |= pace_of(Path(place) / name)
        told["choices"] = (Path(place) / name / "measured.yaml").read_text(encoding="utf-8")
    notes.put(name, told)  # before the judges are asked
    notes.put(name, told | judge(pipeline.eval(), settings))


def changed(name: str, flags: str, device: str) -> Run:
    """The recipe, with what `flags` say; ValueError as `fromnoise train`."""
    run, words = parse(named(name), shlex.split(flags), usage=f"fromnoise train {name}", description="")
    if words:
        raise ValueError(f"{words[0]!r} is no flag of {name}")
    return run.model_copy(update={"training": run.training.model_copy(update={"device": device})})


def of_steps(run: Run, steps: int) -> Run:
    """The same run in so many steps, told of often enough that a pace can be read."""
    often = min(run.training.log_every, max(1, steps // 4))
    training = run.training.model_copy(update={"steps": steps, "log_every": often})
    return run.model_copy(update={"training": training})


def pace_of(directory: Path) -> dict[str, float]:
    """Of a finished run: seconds in all, the pace of its steps (medians of the second half), and its last losses."""
    lines = read_lines(directory / "metrics.jsonl")
    paced = [line for line in lines if "step_seconds" in line]
    later = paced[len(paced) // 2 :]
    keys = [
        key for key in ("step_seconds", "images_per_second", "waiting_for_data", "flop_utilisation") if key in later[0]
    ]
    told = {key: statistics.median(line[key] for line in later) for key in keys}
    validated = [line["validation_ema"] for line in lines if "validation_ema" in line]
    return told | {"train_seconds": paced[-1]["seconds"], "loss": paced[-1]["loss"], "validation_ema": validated[-1]}


def judge_shapes(pipeline: Pipeline, settings: Settings) -> dict[str, Any]:
    """Adherence to prompts, by the checker."""
    prompts = [prompt.text for some in adherence.draw_prompts(SHOWN_SHAPES, 1).values() for prompt in some]
    shown = prompts[:SHOWN_SHAPES]
    write_bytes(settings.out / "shapes.png", as_png(grid(pipeline(shown), 8, shown)))
    found = adherence.evaluate(pipeline, settings.recipes.prompts)
    return {key: found[key] for key in ("adherence", "intervals", "drawing")}


def judge_digits(pipeline: Pipeline, settings: Settings) -> dict[str, Any]:
    """Share of digits in which the classifier sees what was asked for."""
    drawn = protocol.draw(DIGITS, pipeline, settings.recipes.digits)
    sheet = grid(as_pictures(drawn.images[:SHOWN_DIGITS]), 10)
    write_bytes(settings.out / "mnist.png", as_png(sheet))
    network, _ = classifier.load(DIGITS)
    right = network.classify(drawn.images).logits.argmax(1) == drawn.labels  # (N,)
    accuracy = {"accuracy": right.double().mean().item(), "interval": list(wilson(int(right.sum()), len(right)))}
    return accuracy | {"digits": len(right), "drawn_per_second": len(right) / drawn.seconds}
