"""The model card of an exported folder: README.md as the hub shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fromnoise.interop.to_diffusers import Exported
    from fromnoise.models.vae import VAE
    from fromnoise.pipeline.pipeline import Pipeline
    from fromnoise.training.run import Run


def card(pipeline: Pipeline, done: Exported, run: Run | None) -> str:
    """What the model is, how it draws, and what the folder leaves out."""
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
    if run is not None:
        rows |= {"recipe": run.recipe, "data": run.data.type, "steps planned": f"{run.training.steps:,}"}
    return text(done, "text-to-image", rows)


def vae_card(vae: VAE, done: Exported) -> str:
    """What the autoencoder is."""
    config = vae.config
    count = sum(parameter.numel() for parameter in vae.parameters()) / 1e6
    rows = {
        "parameters": f"{count:.2f} million",
        "pictures": f"{config.channels} channels",
        "latents": f"{config.latent_channels} channels, {config.factor} pixels a cell",
    }
    return text(done, "feature-extraction", rows)


def text(done: Exported, kind: str, rows: dict[str, str]) -> str:
    """The page."""
    lines = ["---", "library_name: diffusers", f"pipeline_tag: {kind}", "tags: [fromnoise]", "---", ""]
    lines += [f"# {done.folder.name}", "", "Trained from nothing with fromnoise.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    lines += ["", "```python", done.usage, "```", "", f"Layout: {done.layout.pipeline}."]
    lines += ["", "| part | class |", "|---|---|"] if done.parts else []
    lines += [f"| {part} | {cls} |" for part, cls in done.parts.items()]
    if done.layout.why:
        lines += ["", f"It is not {done.layout.nearest}, for", "", *(f"- {why}" for why in done.layout.why)]
    return "\n".join([*lines, "", "Left out:", "", *(f"- {what}" for what in done.left_out), ""])
