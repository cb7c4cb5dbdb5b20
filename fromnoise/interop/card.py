"""The model card of an exported folder: README.md as the hub shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fromnoise.interop.to_diffusers import Exported
    from fromnoise.pipeline.pipeline import Pipeline


def card(pipeline: Pipeline, done: Exported, run: Any) -> str:
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
        rows |= {"recipe": run.recipe, "data": run.data.type, "steps trained": f"{run.training.steps:,}"}
    lines = ["---", "library_name: diffusers", "tags: [fromnoise, text-to-image]", "---", ""]
    lines += [f"# {done.folder.name}", "", "Trained from nothing with fromnoise.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    lines += ["", "```python", done.usage, "```", ""]
    lines += [f"Layout: {done.layout.pipeline}.", "", "| part | class |", "|---|---|"]
    lines += [f"| {part} | {cls} |" for part, cls in done.parts.items()]
    if done.layout.why:
        lines += ["", f"It is not {done.layout.nearest}, for", *(f"- {why}" for why in done.layout.why)]
    lines += ["", "Left out:", *(f"- {what}" for what in done.left_out), ""]
    return "\n".join(lines)
