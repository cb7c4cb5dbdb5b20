"""A run as one HTML page that fetches nothing: how it went, what it draws, what it cost, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.core.config import as_yaml
from fromnoise.pages.page import (
    count,
    data,
    embedded,
    figures,
    folded,
    how,
    large,
    listed,
    notes,
    page,
    pairs,
    percent,
    plain,
    table,
)
from fromnoise.pipeline.pictures import as_png
from fromnoise.reporting.curves import reconstruction_charts, sides, spread_out, time_charts, training_charts
from fromnoise.reporting.record import EVALUATION, Record, Tree
from fromnoise.training import reference
from fromnoise.training.directory import differences, leaves
from fromnoise.training.log import duration
from fromnoise.training.run import Muon, Run, VAERun

SHEETS = 6  # previews on the page, the last among them
WIDEST = 1600  # pixels of a preview on the page; wider ones are shrunk
LISTED = 12  # numbers of a list that are shown
NOT_RECORDED = "not recorded: the run was begun by a version that did not"


def report(record: Record, recipe: Run | VAERun | None) -> str:
    """The page of a run. recipe: what its recipe is today, to tell what was changed; None where there is none."""
    costs, sizes = record.costs, record.sizes
    sections = [
        ("Previews", _previews(record)),
        ("Curves", _curves(record)),
        ("Loss by time", _by_time(record)),
        ("Reconstruction", _reconstruction(record)),
        ("Metrics", metrics(record)),
        ("Cost", _cost(costs, sizes)),
        ("Settings", _settings(record, recipe)),
        ("Environment", _environment(record)),
        ("Hashes", _hashes(record)),
    ]
    shown = [(title, content) for title, content in sections if content]
    end = f"Written by fromnoise from {escape(str(record.directory))}; fromnoise report writes it anew."
    return page(record.name, _intro(record, costs, sizes), shown, end)


def _intro(record: Record, costs: Tree, sizes: Tree) -> str:
    planned = record.run.training.steps
    state = "trained" if record.done else f"in training, or stopped: {percent(record.steps / planned)} of its steps"
    of = "" if record.done else f" <small>of {planned:,}</small>"
    facts = [("steps", data(record.steps, count) + of)]
    facts.append(("pictures seen", data(costs["pictures"], count)))
    if "parameters" in sizes:
        facts.append(("parameters", data(sizes["parameters"], large)))
    if record.validated:
        last = record.validated[-1]
        facts.append(("validation loss, averaged weights", data(last["validation_ema"], plain)))
        facts.append(("validation loss, weights as they are", data(last["validation_raw"], plain)))
    if costs["seconds"] is not None:
        facts.append(("time", data(costs["seconds"], duration)))
        facts.append(("images/s (median)", data(costs["images_per_second"], plain)))
    cards = "".join(f"<div><b>{said}</b>{name}</div>" for name, said in facts)
    kind = "a VAE" if isinstance(record.run, VAERun) else "a model that draws"
    return f"<p>Recipe {escape(record.run.recipe)}, {kind}: {state}.</p><div class=facts>{cards}</div>"


def _previews(record: Record) -> str:
    if not record.previews:
        return "<p>None yet.</p>"
    steps = [row["step"] for row in spread_out([{"step": step} for step in record.previews], SHEETS)]
    *earlier, last = [
        f"<figure><figcaption>after {step:,} steps</figcaption>"
        f"{embedded(picture(record.previews[step]), f'preview after {step:,} steps')}</figure>"
        for step in steps
    ]
    above = (
        "Held-out pictures above, then what is left of them by the weights as they are, and by their average."
        if isinstance(record.run, VAERun)
        else "The same prompts from the same noise each time: above by the weights as they are, below by their average."
    )
    rest = folded(f"{len(earlier)} earlier ones", f"<div class=sheets>{''.join(earlier)}</div>") if earlier else ""
    return f"<div class=sheets>{last}</div>{rest}" + how(f"<p>{above}</p>")


def picture(file: Path) -> bytes:
    """A PNG for a page: as it is, or shrunk where it is wider than any screen."""
    with Image.open(file) as image:
        if image.width <= WIDEST:
            return file.read_bytes()
        return as_png(image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS))


def _curves(record: Record) -> str:
    curve, why = reference.comparable(record.run)
    charts = training_charts(sides([record], [""]), curve)
    if not charts:
        return "<p>Nothing was logged yet.</p>"
    told = (
        "<p>Training loss and gradient norm as they were logged, thin, and averaged over a thirtieth of the training; "
        "validation on samples that never change. What the first steps lost may lie above a chart. The height of a "
        "loss means something only beside others of the same objective, data and space.</p>"
    )
    if isinstance(record.run.training.optimizer, Muon):
        told += "<p>The learning rate is that of AdamW, which trains what Muon does not; Muon's goes alike.</p>"
    if curve:
        seeds = ", ".join(map(str, curve.seeds))
        told += (
            f"<p>Grey: the reference of the recipe (seed {seeds}, <code>{escape(curve.command)}</code>, "
            f"{curve.machine['processor']}, {curve.machine['device']}) with its band of {reference.WIDTH:g} standard "
            f"deviations. {escape(' '.join(curve.made))}</p>"
        )
    else:
        told += f"<p>No reference to compare these losses with: {escape(why)}.</p>"
    return figures(charts, pairwise=True) + how(told)


def _by_time(record: Record) -> str:
    charts = time_charts(sides([record], [""]))
    if not charts:
        return ""
    last = record.validated[-1]
    values = {kind: last[f"validation_{kind}_by_time"] for kind in ("raw", "ema")}
    bins = len(values["raw"])
    head = [f"at step {last['step']:,}, by t", *(f"{(k + 0.5) / bins:.2f}" for k in range(bins))]
    names = {"raw": "weights as they are", "ema": "averaged weights"}
    rows = [[names[kind], *(data(value, plain) for value in row)] for kind, row in values.items()]
    told = (
        "<p>The validation loss by tenths of t: what is decided at high noise (the whole picture) is to the right, "
        "detail to the left. A line that stays where it began is a range of t that is not learned.</p>"
    )
    return figures(charts, pairwise=True) + table(head, rows) + how(told)


def _reconstruction(record: Record) -> str:
    if not isinstance(record.run, VAERun) or not record.validated:
        return ""
    last = record.validated[-1]
    head = ["channel", *(str(k) for k in range(len(last["latent_mean"])))]
    rows = [
        [key.replace("_", " "), *(data(value, plain) for value in last[key])]
        for key in ("latent_mean", "latent_std", "latent_kurtosis")
    ]
    told = "<p>Of held-out pictures, by averaged weights. Kurtosis is 3 for a normal distribution.</p>"
    return figures(reconstruction_charts(sides([record], [""]))) + table(head, rows) + how(told)


def metrics(record: Record) -> str:
    """The numbers of the last `fromnoise evaluate`, whatever they are."""
    found = record.evaluation
    if found is None:
        return f"<p>Not evaluated yet: <code>fromnoise evaluate {escape(str(record.directory))}</code></p>"
    told = []
    if record.checkpoint and "checkpoint" in found and found["checkpoint"] not in record.hashes.values():
        told.append("These numbers are of other weights than the last checkpoint's.")
    if record.drawn_otherwise:
        told.append(record.drawn_otherwise)
    rows = [(name, _number(value)) for name, value in numbers(found)]
    return (notes(told) if told else "") + pairs(rows)


def numbers(tree: Tree) -> Iterator[tuple[str, Any]]:
    """What a record holds, a name for each; records in a list are numbered, an estimate stays together."""
    for name, value in tree.items():
        if isinstance(value, dict) and not {"low", "high"} <= value.keys():
            yield from ((f"{name}: {inner}".replace("_", " "), told) for inner, told in numbers(value))
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            yield from numbers({f"{name} {k}": one for k, one in enumerate(value, start=1)})
        else:
            yield name.replace("_", " "), value


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | list | dict):
        return escape(str(value))
    if isinstance(value, dict):
        inner = ", ".join(f"{escape(key)} {_number(one)}" for key, one in value.items())
        return f"<small>{inner}</small>"
    if isinstance(value, list):
        if len(value) > LISTED or any(isinstance(one, list | dict) for one in value):
            return f"<small>{len(value)} values, in {EVALUATION}</small>"
        return " ".join(map(_number, value))
    return data(value, plain)


def _cost(costs: Tree, sizes: Tree) -> str:
    rows = [("optimizer steps", data(costs["steps"], count)), ("pictures a step", data(costs["batch"], count))]
    rows.append(("pictures seen", data(costs["pictures"], count)))
    if "training_flops" in sizes:
        flops = sizes["training_flops"]
        rows.append(("parameters", data(sizes["parameters"], count)))
        rows.append(("FLOPs of training on one picture", data(flops, large)))
        rows.append(("FLOPs of the training", data(flops * costs["pictures"], large)))
    else:
        rows.append(("parameters and FLOPs", f"not counted: {escape(sizes['why'])}"))
    if costs["seconds"] is not None:
        rows.append(("time, stops left out", f"{data(costs['seconds'], duration)} ({costs['seconds']:,.0f} s)"))
        rows.append(("images/s (median)", data(costs["images_per_second"], plain)))
        rows.append(("waiting for data (median)", data(costs["waiting_for_data"], percent)))
    if costs["flop_utilisation"] is not None:
        rows.append(("of the device's peak FLOP/s (median)", data(costs["flop_utilisation"], percent)))
    told = "<p>Matrix products, convolutions and attention count; a multiplication with its addition is two FLOPs.</p>"
    return pairs(rows) + how(told)


def _settings(record: Record, recipe: Run | VAERun | None) -> str:
    run, parts = record.run, []
    if recipe is None:
        parts.append(f"<p>There is no recipe {escape(run.recipe)} to compare with.</p>")
    elif changed := [found for found in differences(recipe, run) if found[0] != "recipe"]:
        rows = [[escape(key), escape(_text(there)), escape(_text(here))] for key, there, here in changed]
        parts.append(f"<h3>Unlike the recipe {escape(run.recipe)}, or found out</h3>")
        parts.append(table(["setting", "recipe", "here"], rows))
    else:
        parts.append(f"<p>All as in the recipe {escape(run.recipe)}.</p>")
    parts.append("<h3>Derived</h3>" + pairs([(name, escape(said)) for name, said in derived(record)]))
    parts.append(folded("All settings (run.yaml)", f"<pre>{escape(as_yaml(run))}</pre>"))
    return "".join(parts)


def derived(record: Record) -> Iterator[tuple[str, str]]:
    """What followed from the settings, the data and the machine."""
    run, training = record.run, record.run.training
    for key, value in leaves(record.choices):
        yield f"measured: {key}", _text(value)
    yield "weights averaged over", f"{training.ema * training.steps:,.0f} steps"
    start = round(training.steps * (1 - training.decay))
    yield "learning rate", f"rises over {training.warmup:,} steps, falls from step {start:,} to {training.steps:,}"
    if isinstance(run, Run):
        yield "pictures", f"{run.model.channels} x {run.model.size} x {run.model.size} values"
        for key, value in leaves(run.model.space.model_dump(mode="json")):
            if key in ("shift", "scale"):
                yield f"space: {key}", _text(value)


def _environment(record: Record) -> str:
    if not record.environment:
        return f"<p>{NOT_RECORDED.capitalize()}.</p>"
    rows = []
    for line in record.environment:
        software = ", ".join(f"{name} {number}" for name, number in line["versions"].items())
        said = "<br>".join(map(escape, (_machine(line["machine"]), software)))
        rows.append((f"from step {line['step']:,}", f"began {escape(line['date'])} (UTC)<br>{said}"))
    return pairs(rows)


def _machine(machine: Tree) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in machine.items())


def _hashes(record: Record) -> str:
    rows = list(record.hashes.items())
    if not record.environment:
        rows.append(("held-out pictures", NOT_RECORDED))
    return "<p>sha256 each.</p>" + listed(rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
