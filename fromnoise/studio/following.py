"""A run in training as HTML: how far it is, its losses, what it draws; each part for itself, as charts take long."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from html import escape
from pathlib import Path

from PIL import Image

from fromnoise.pages.page import figures, plain
from fromnoise.reporting.curves import sides, spread_out, time_charts, training_charts
from fromnoise.reporting.record import Record
from fromnoise.studio.film import Frame, film
from fromnoise.training.log import duration

SHEETS = 12  # previews in the film
LOGGED = 600  # lines of training that a chart is made of
CHARTS = 2  # of training: losses; the rest is in the run's report
charting = threading.Lock()


def mark(directory: Path) -> str:
    """What changes with every line that a training tells and every preview it draws."""
    log, sheets = directory / "metrics.jsonl", directory / "previews"
    return f"{directory.name} {[path.stat().st_mtime_ns for path in (log, sheets) if path.exists()]}"


def curves(record: Record) -> str:
    """Charts of the losses: of training, of validation, and by time."""
    # Many lines tell no more than some hundreds, and take a chart seconds.
    shown = sides([replace(record, logged=spread_out(record.logged, LOGGED))], [""])
    with charting:  # matplotlib's settings are the whole process's
        charts = [*training_charts(shown)[:CHARTS], *time_charts(shown)[:1]]
    return figures(charts) if charts else ""


def facts(record: Record) -> str:
    """Steps, losses, speed and time left, as of the last line that was written."""
    planned = record.run.training.steps
    told = [("steps", f"{record.steps:,} <small>of {planned:,}</small>")]
    if record.logged:
        last = record.logged[-1]
        left = (planned - last["step"]) * last["step_seconds"]
        told += [("loss", plain(last["loss"])), ("images/s", f"{last['images_per_second']:,.0f}")]
        told += [("time left", "none" if record.done else duration(left))]
    if record.validated:
        told.append(("validation loss", plain(record.validated[-1]["validation_ema"])))
    cards = "".join(f"<div><b>{said}</b>{name}</div>" for name, said in told)
    share = record.steps / planned
    bar = f'<progress max="1" value="{share:.4f}" aria-label="steps done">{share:.0%}</progress>'
    state = f"{escape(record.name)}: recipe {escape(record.run.recipe)}, {_state(record)}"
    return f"<p>{state}</p>{bar}<div class=facts>{cards}</div>"


def _state(record: Record) -> str:
    if record.done:
        return "trained"
    log = record.directory / "metrics.jsonl"
    if not log.is_file():
        return "nothing was told yet"
    return f"last told of {duration(max(0.0, time.time() - log.stat().st_mtime))} ago"


def previews(record: Record) -> str:
    """The previews as a film, the last one first seen."""
    steps = [row["step"] for row in spread_out([{"step": step} for step in record.previews], SHEETS)]
    shown: list[Frame] = []
    for step in steps:
        with suppress(OSError):  # one that is damaged or deleted hides nothing else
            shown.append(Frame((_sheet(record.previews[step]),), f"after {step:,} steps"))
    above = "same prompts, same noise: raw weights, then their average"
    return film(shown, (above,), "Preview, by training step") if shown else ""


def _sheet(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")
