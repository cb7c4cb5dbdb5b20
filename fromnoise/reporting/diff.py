"""Two runs side by side: what was set differently, how they went, what they draw from the same noise."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import torch

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.device import pick
from fromnoise.evaluation.comparison.measure import strip
from fromnoise.pages.page import (
    chip,
    data,
    figures,
    folded,
    how,
    large,
    listed,
    notes,
    page,
    percent,
    plain,
    png,
    table,
)
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pictures import as_pictures, as_png, grid
from fromnoise.reporting.curves import Side, reconstruction_charts, sides, time_charts, training_charts
from fromnoise.reporting.record import Record, Tree
from fromnoise.reporting.report import numbers
from fromnoise.training.directory import differences
from fromnoise.training.log import duration
from fromnoise.training.run import Run, VAERun

ROWS = 2  # of pictures of each run
SHOWN = 8  # pictures that VAEs reconstruct
MISSING = "–"
MANY = 10**7  # more is told in three digits
SHARE = "waiting for data"
TIME = "time"
SAMPLER = "drawing: sampler"
NAMES = {
    "steps": "optimizer steps",
    "loss": "training loss",
    "validation_raw": "validation loss, weights as they are",
    "validation_ema": "validation loss, averaged weights",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "pictures": "pictures seen",
    "seconds": TIME,
    "images_per_second": "images/s",
    "waiting_for_data": SHARE,
    "parameters": "parameters",
    "training_flops": "FLOPs of training on one picture",
}
"""What both came to, and what it is called."""

Row = tuple[str, Any, Any]
"""What is compared, and what each run says of it; None for nothing."""


def names(first: Record, second: Record) -> list[str]:
    """What the runs are called where they stand side by side: their directories, as far as that tells them apart."""
    if first.name != second.name:
        return [first.name, second.name]
    return [str(first.directory), str(second.directory)]


def settings(first: Record, second: Record) -> list[Row]:
    """The settings that differ."""
    return list(differences(first.run, second.run))


def results(first: Record, second: Record) -> list[Row]:
    """What both came to: losses, cost, and all numbers of `fromnoise evaluate` that either has, with the sampler."""
    ours, theirs = (_known(record) for record in (first, second))
    rows: list[Row] = [
        (name, ours.get(key), theirs.get(key)) for key, name in NAMES.items() if key in ours or key in theirs
    ]
    found = [_plain_numbers(record.evaluation) for record in (first, second)]
    rows += [(name, found[0].get(name), found[1].get(name)) for name in dict.fromkeys([*found[0], *found[1]])]
    return rows


def _known(record: Record) -> Tree:
    """The last losses of a run, its cost and its size."""
    last = [line for lines in (record.logged, record.validated) for line in lines[-1:]]
    told = {key: value for line in last for key, value in line.items()}
    return told | record.costs | record.sizes


def _plain_numbers(evaluation: Tree | None) -> dict[str, Any]:
    told = dict(numbers(evaluation)) if evaluation else {}
    means = {name: value.get("mean") if isinstance(value, dict) else value for name, value in told.items()}
    shown = {name: value for name, value in means.items() if isinstance(value, int | float) or name == SAMPLER}
    return {name: value for name, value in shown.items() if name != "seed"}


def otherwise(first: Record, second: Record) -> list[str]:
    """Of each run whose evaluation did not draw as its settings say: how."""
    both = zip(names(first, second), (first, second), strict=True)
    return [f"{name}: {record.drawn_otherwise}" for name, record in both if record.drawn_otherwise]


def diff(first: Record, second: Record, seed: int, device: str) -> str:
    """The page of two runs, whose pictures are drawn from the noise of `seed`."""
    shown = sides([first, second], names(first, second))
    curves = figures([*training_charts(shown), *time_charts(shown), *reconstruction_charts(shown)], pairwise=True)
    head = [chip(side.name, side.colour) for side in shown]
    unlike = [[escape(key), escape(_text(a)), escape(_text(b))] for key, a, b in settings(first, second)]
    came_to = [[escape(name), _cell(name, a), _cell(name, b)] for name, a, b in results(first, second)]
    unusual = otherwise(first, second)
    hashes = "".join(
        f"<p>{chip(side.name, side.colour)}</p>{listed(list(side.record.hashes.items()))}" for side in shown
    )
    same = "<p>No setting differs.</p>"
    sections = [
        ("Settings that differ", table(["setting", *head], unlike) if unlike else same),
        ("What they came to", (notes(unusual) if unusual else "") + table(["", *head], came_to)),
        ("Pictures", pictures(shown, seed, device)),
        ("Curves", curves + how(f"<p>{_told(shown)}</p>")),
        ("Hashes", folded("sha256 of both", hashes)),
    ]
    intro = "".join(
        f"<p>{chip(side.name, side.colour)}: <code>{escape(str(side.record.directory))}</code></p>" for side in shown
    )
    title = " against ".join(side.name for side in shown)
    return page(title, intro, sections, "Written by fromnoise diff.")


def _told(shown: Sequence[Side]) -> str:
    keys = [key for key, *_ in settings(shown[0].record, shown[1].record)]
    if not any(key.startswith(("model.objective", "model.loss", "model.space", "model.path", "data.")) for key in keys):
        return "Objective, path, space and data are alike, so that losses can be compared."
    return "Objective, path, space or data differ: the height of a loss does not tell which run is better."


def pictures(shown: Sequence[Side], seed: int, device: str) -> str:
    """What each run makes of the same noise and the same prompts or, of VAEs, of the same held-out pictures."""
    made, faults = [], []
    for side in shown:
        try:
            made.append((side, _drawn(side.record, shown[0].record, seed, device)))
        except ValueError as error:  # as when its data or a text encoder are not here: the rest is worth having
            faults.append(f"{side.name} draws nothing: {error}")
    sheets = "".join(
        f"<figure><figcaption>{chip(side.name, side.colour)}</figcaption>{png(sheet, f'made by {side.name}')}</figure>"
        for side, sheet in made
    )
    if isinstance(shown[0].record.run, VAERun):
        told = "Held-out pictures above, their reconstructions by averaged weights below."
    else:
        told = f"By averaged weights, as each draws by default; the first picture from the noise of seed {seed}."
        if len({_shape(side.record.run) for side in shown}) > 1:
            told += " The runs draw different sizes, channels or spaces: their noise cannot be the same."
        if shown[0].record.run.data.type != shown[1].record.run.data.type:
            told += " Both are asked for what the data of the first show."
    return (notes(faults) if faults else "") + f"<div class=grids>{sheets}</div>" + how(f"<p>{told}</p>")


def _shape(run: Run | VAERun) -> tuple[Any, ...]:
    return (run.model.channels, run.model.size, run.model.space.type) if isinstance(run, Run) else ()


def _drawn(record: Record, first: Record, seed: int, device: str) -> str:
    """A sheet of pictures as a PNG in base64; prompts or held-out pictures are those of the run `first`."""
    content = first.run.data.build(first.run.training.seed)
    if isinstance(record.run, Run):
        return strip(load(record.directory, device=device), content, seed, None, None, ROWS)
    model = Autoencoder.load(weights(record.directory)).to(pick(device)).eval()
    images = content.validation(SHOWN).images.to(model.device)  # (B, C, H, W)
    with torch.no_grad():
        made = model.vae.decode(model.vae.encode(images).mean).float()  # (B, C, H, W)
    return base64.b64encode(as_png(grid(as_pictures(torch.cat((images, made))), SHOWN))).decode()


def summary(first: Record, second: Record) -> str:
    """A short table for a terminal: what differs, and what it came to."""
    head = ["", *names(first, second)]
    rows = [[key, _text(a), _text(b)] for key, a, b in settings(first, second)] or [["settings", "alike", "alike"]]
    rows.append([])
    rows += [[name, *(_short(name, value) for value in values)] for name, *values in results(first, second)]
    widths = [max(len(row[k]) for row in [head, *rows] if row) for k in range(3)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=bool(row))] for row in [head, *rows]]
    return "\n".join(["  ".join(row).rstrip() for row in padded] + otherwise(first, second))


def _short(name: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or MISSING
    if name in (TIME, SHARE):
        return duration(value) if name == TIME else percent(value)
    if isinstance(value, int):
        return f"{value:,}" if value < MANY else large(value)
    return f"{value:.4g}" if abs(value) < 1000 else plain(value)


def _cell(name: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return escape(value or MISSING)
    return data(value, lambda number: _short(name, number))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else MISSING if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
