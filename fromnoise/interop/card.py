"""The model card of an exported folder: README.md as the hub shows it, with what the run's own card tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fromnoise.pipeline.place import directory_of

if TYPE_CHECKING:
    from fromnoise.interop.to_diffusers import Exported
    from fromnoise.models.vae import VAE
    from fromnoise.pipeline.pipeline import Pipeline

CARD = "README.md"
USING = ("## How to draw", "## How to use it")  # the sections of a run's card that do not hold of the folder


def card(pipeline: Pipeline, done: Exported, file: Path) -> str:
    """What the model of the weights `file` is, how it draws, and what the folder leaves out."""
    config, sampling = pipeline.config, pipeline.config.sampling
    count = sum(parameter.numel() for parameter in pipeline.parameters()) / 1e6
    rows = {
        "parameters trained": f"{count:.2f} million",
        "backbone": config.backbone.type,
        "condition": config.conditioner.type,
        "pictures": f"{config.size} x {config.size}, {config.channels} channels",
        "space": config.space.type,
        "path, target": f"{config.path.type}, {config.objective.target}",
        "drawing": f"{sampling.sampler}, {sampling.steps} steps, guidance {sampling.guidance:g}",
    }
    prompted = config.conditioner.type in ("text", "frozen_text")
    return page(done, file, "text-to-image" if prompted else "unconditional-image-generation", rows)


def vae_card(vae: VAE, done: Exported, file: Path) -> str:
    """What the autoencoder of the weights `file` is."""
    config = vae.config
    count = sum(parameter.numel() for parameter in vae.parameters()) / 1e6
    rows = {
        "parameters": f"{count:.2f} million",
        "pictures": f"{config.channels} channels",
        "latents": f"{config.latent_channels} channels, {config.factor} pixels a cell",
    }
    return page(done, file, "image-feature-extraction", rows)


def page(done: Exported, file: Path, kind: str, rows: dict[str, str]) -> str:
    """The card."""
    before, sections = of_run(file)
    front = {"tags": ["fromnoise"]} | before | {"library_name": "diffusers", "pipeline_tag": kind}
    lines = ["---", yaml.safe_dump(front, allow_unicode=True).rstrip(), "---", ""]
    lines += [f"# {done.folder.resolve().name}", "", "Written by fromnoise.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    lines += ["", "```python", done.usage, "```", "", f"Layout: {done.layout.pipeline}."]
    lines += ["", "| part | class |", "|---|---|"] if done.parts else []
    lines += [f"| {part} | {cls} |" for part, cls in done.parts.items()]
    if done.layout.why:
        lines += ["", f"It is not {done.layout.nearest}, for", "", *(f"- {why}" for why in done.layout.why)]
    lines += ["", "Left out:", "", *(f"- {what}" for what in done.left_out), ""]
    return "\n".join([*lines, *sections])


def of_run(file: Path) -> tuple[dict[str, Any], list[str]]:
    """What the card of the run that the weights `file` lie in has in front, and its sections; nothing where there is
    none."""
    directory = directory_of(file)
    if directory is None or not (directory / CARD).is_file():
        return {}, []
    text = (directory / CARD).read_text(encoding="utf-8")
    front = re.match(r"---\n(.*?)^---\n", text, re.M | re.S)
    sections = re.split(r"^(?=## )", re.sub(r"<!--.*?-->\n?", "", text, flags=re.S), flags=re.M)[1:]
    told = yaml.safe_load(front[1]) if front else {}
    kept = [one.rstrip() + "\n" for one in sections if not one.startswith(USING)]
    return told if isinstance(told, dict) else {}, kept
