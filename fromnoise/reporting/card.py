"""A run as a model card: Markdown with the front matter that model hubs read, for README.md beside the weights."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fromnoise.data.config import DataConfig
from fromnoise.pipeline.place import SAMPLING, chosen_sampling
from fromnoise.reporting.record import Record, Tree
from fromnoise.reporting.report import numbers
from fromnoise.training.log import duration
from fromnoise.training.run import Run, VAERun

CARD = "README.md"
MARK = re.compile(r"\n<!-- written by fromnoise report: (\w{64}) -->\n\Z")
SOURCES = {
    "shapes": ("", "Procedural scenes, drawn by fromnoise: no one else has rights to them."),
    "mnist": ("ylecun/mnist", "MNIST (LeCun, Cortes and Burges), under the terms of those who publish it."),
    "cifar10": ("uoft-cs/cifar10", "CIFAR-10 (Krizhevsky 2009), under the terms of those who publish it."),
}
"""What is known of a data set: its name on the hub, and its terms."""
OTHERS = "Pictures of whoever trained it, whose terms are not known here."


def card(record: Record) -> str:
    """The card of a run. Its last line holds the sha256 of all before it, so that a change by hand is seen."""
    parts = [_front(record), f"# {record.name}\n", _about(record), _trained(record), _use(record), _results(record)]
    text = "\n".join([*parts, _limits(record), _licence(record)])
    return f"{text}\n<!-- written by fromnoise report: {_hash(text)} -->\n"


def own(file: Path) -> bool:
    """Whether `file` may be written: it is not there, or is as `card` wrote it."""
    if not file.exists():
        return True
    text = file.read_text(encoding="utf-8", errors="replace")
    mark = MARK.search(text)
    return bool(mark) and mark.group(1) == _hash(text[: mark.start()])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _front(record: Record) -> str:
    run = record.run
    name, _ = _source(run.data)
    task = "text-to-image"
    if isinstance(run, VAERun):
        task = "image-feature-extraction"
    elif run.model.conditioner.type in ("none", "label"):
        task = "unconditional-image-generation"
    lines = ["---", "library_name: fromnoise", "license: unknown", f"pipeline_tag: {task}", "tags:", "- fromnoise"]
    lines.append("- vae" if isinstance(run, VAERun) else "- diffusion")
    if name:
        lines += ["datasets:", f"- {name}"]
    return "\n".join([*lines, "---", ""])


def _source(data: DataConfig) -> tuple[str, str]:
    return SOURCES.get(data.type, ("", OTHERS))


def _about(record: Record) -> str:
    run, sizes = record.run, record.sizes
    count = f" of {sizes['parameters'] / 1e6:.2f} M parameters" if "parameters" in sizes else ""
    if isinstance(run, VAERun):
        vae = run.model.vae
        what = (
            f"A variational autoencoder{count}: pictures of {vae.channels} channels to latents of "
            f"{vae.latent_channels}, one cell for {vae.factor} x {vae.factor} pixels."
        )
    else:
        model, told = run.model, {"none": "nothing", "label": "a class"}
        reads = told.get(model.conditioner.type, "a prompt")
        what = (
            f"A diffusion model{count} that draws pictures of {model.size} pixels, told {reads}: backbone "
            f"{model.backbone.type}, path {model.path.type}, asked for {model.objective.target}, in {model.space.type} "
            f"space. Recipe: {run.recipe}."
        )
    steps = (
        "" if record.done else f"\n\nIts training is not finished: {record.steps:,} of {run.training.steps:,} steps."
    )
    sheet = f"\n\n![Previews along the training](previews/{_last(record).name})" if record.previews else ""
    return what + steps + sheet + "\n"


def _last(record: Record) -> Path:
    return record.previews[max(record.previews)]


def _trained(record: Record) -> str:
    run, costs, training = record.run, record.costs, record.run.training
    optimizer = training.optimizer
    lines = [
        f"- Data: {run.data.type}. {_source(run.data)[1]}",
        f"- {costs['steps']:,} optimizer steps of {costs['batch']} pictures, {costs['pictures']:,} in all, seed "
        f"{training.seed}.",
        f"- {optimizer.type}, peak learning rate {optimizer.lr:g}; weights averaged over the last "
        f"{training.ema * training.steps:,.0f} steps.",
    ]
    if costs["seconds"] is not None:
        speed = f"{costs['images_per_second']:,.0f} images/s"
        lines.append(f"- Time: {duration(costs['seconds'])}, at {speed} (median).")
    for line in record.environment[-1:]:
        machine, version = line["machine"], line["versions"]
        lines.append(
            f"- Machine: {machine['device']}, {machine['processor']}; fromnoise {version['fromnoise']}, torch "
            f"{version['torch']}, Python {version['python']}."
        )
    lines.append(
        "- All settings: `run.yaml`; all losses: `metrics.jsonl`; both, with curves, as a page: `report.html`."
    )
    lines += [f"- sha256 of {name}: `{value}`" for name, value in record.hashes.items()]
    return "\n".join(["## How it was trained", "", *lines, ""])


def _use(record: Record) -> str:
    if isinstance(record.run, VAERun):
        folder = str(record.directory / "vae")
        python = f"from diffusers import AutoencoderKL\n\nvae = AutoencoderKL.from_pretrained({folder!r})"
        flag = shlex.join(["--model.space.path", folder])
        return f"## How to use it\n\n```python\n{python}\n```\n\nOr train on its latents: `{flag}`.\n"
    usual = record.run.model.sampling
    chosen = chosen_sampling(record.directory, usual)
    drawn = f"By default: {(chosen or usual).words()}{f', as {SAMPLING} has it' if chosen else ''}."
    place, prompt = str(record.directory), example(record.run)
    python = f'import fromnoise\n\nmodel = fromnoise.load({place!r})\nmodel({prompt!r})[0].save("picture.png")'
    shell = f"{sampling_command(record.run, record.directory)} --grid"
    return "\n".join(["## How to draw", "", f"```\n{shell}\n```\n\n```python\n{python}\n```", "", drawn, ""])


def sampling_command(run: Run, directory: Path) -> str:
    """What draws with `run`, typed where its training was begun, whose `directory` may be told from there."""
    return shlex.join(["fromnoise", "sample", str(directory), example(run)])


def example(run: Run) -> str:
    """What its model may be told: the first prompt of the previews, or any of its kind where none was asked for."""
    usual = {"none": "", "label": "0"}.get(run.model.conditioner.type, "a prompt")
    return next(iter(run.training.previews), usual)


def _results(record: Record) -> str:
    lines = []
    if record.validated:
        last = record.validated[-1]
        lines.append("| measured on held-out pictures | weights as they are | averaged weights |")
        lines.append("|---|---|---|")
        lines.append(f"| loss at step {last['step']:,} | {last['validation_raw']:.4g} | {last['validation_ema']:.4g} |")
    found = record.evaluation
    told = list(_rows(found)) if found else []
    if told:
        lines += ["", "| measured by `fromnoise evaluate` | |", "|---|---|", *told]
        lines += ["", record.drawn_otherwise] if record.drawn_otherwise else []
    else:
        lines += ["", "Not evaluated yet beyond its losses."]
    return "\n".join(["## Results", "", *lines, ""])


def _rows(found: Tree) -> Iterator[str]:
    """Rows for what is one number, one word or an estimate."""
    for name, value in numbers(found):
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_text(one)}" for key, one in value.items())
        if not isinstance(value, list):
            yield f"| {_cell(name)} | {_cell(_text(value))} |"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _limits(record: Record) -> str:
    run = record.run
    lines = [f"- It has seen {record.costs['pictures']:,} pictures of one data set, and knows nothing else."]
    if isinstance(run, Run):
        lines.append(f"- Other sizes than {run.model.size} pixels are not what it was trained on.")
        if run.model.conditioner.type == "text":
            lines.append("- Words that its captions do not have mean nothing to it.")
    if record.evaluation is None:
        lines.append("- How good it is was not measured: its losses do not tell.")
    lines.append("- It was not examined for biases of its data, nor made safe for any use.")
    return "\n".join(["## Limits", "", *lines, ""])


def _licence(record: Record) -> str:
    return (
        "## Licence\n\nfromnoise, which trained it, is under Apache-2.0. That says nothing of these weights: they are "
        f"whoever's trained them, who states a licence here and in the first lines. {_source(record.run.data)[1]}\n"
    )
