"""How far what diffusers draws of an exported run is from what fromnoise draws of the same noise. Writes one JSON
record.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from benchmarks.harness import describe_machine, run_main, write_record
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.interop.hub import files_of
from fromnoise.interop.to_diffusers import Exported, export
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.directory import run_of

RECORD = Path(__file__).parent / "results" / "exports.json"
USAGE = "python -m benchmarks.exports RUN [RUN ...] [--option VALUE ...]"
DESCRIPTION = """\
Exports every run to a temporary folder, opens all of them in one process by DiffusionPipeline.from_pretrained without
a network, and draws the same prompts from the same noise on both sides, as the run draws by default, in float32.
"""


class Settings(Config):
    """What is drawn."""

    pictures: PositiveInt = 8
    """Pictures of every run: its preview prompts, or its classes."""
    seed: int = 0
    """Noise of the first; the next ones count on."""
    onnx: bool = False
    """Also write every backbone as ONNX, and record how near onnxruntime's answer is."""
    sheets: Path | None = None
    """Folder for one PNG of every run: fromnoise's pictures over diffusers'."""
    out: Path = RECORD
    """File of the record."""


def main(args: Sequence[str]) -> None:
    settings, runs = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if not runs:
        raise ValueError(f"no run is given; usage: {USAGE}")
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(i) for i in range(len(runs))]
        exported = [export(Path(run), to, onnx=settings.onnx) for run, to in zip(runs, folders, strict=True)]
        opened = [open_folder(done) for done in exported]
        rows = []
        for run, done, pipe in zip(runs, exported, opened, strict=True):
            rows.append(compare(Path(run), done, pipe, settings))
            print(f"{run:<24}{rows[-1]['largest_difference']:.1e}  {done.layout.pipeline}", flush=True)
    command = " ".join(["python -m benchmarks.exports", *args])
    write_record(settings.out, {"command": command, "machine": machine, "runs": rows})


def open_folder(done: Exported) -> Any:
    """The pipeline as diffusers opens it; nothing is fetched."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    own = done.layout.name == "fromnoise"
    pipe = DiffusionPipeline.from_pretrained(done.folder, local_files_only=True, trust_remote_code=own)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def compare(run: Path, done: Exported, pipe: Any, settings: Settings) -> dict[str, Any]:
    """What both sides draw, and how far apart it is."""
    pipeline = load(run, device="cpu")
    prompts, said = asked(run, pipeline, settings.pictures)
    sampling = pipeline.config.sampling
    if done.layout.name != "fromnoise":
        said |= {"num_inference_steps": sampling.steps, "guidance_scale": sampling.guidance}
    *_, last = pipeline.stream(prompts, seed=settings.seed, precision="float32")
    ours = pipeline.space.decode(last.x) / 2 + 0.5  # (B, C, H, W)
    generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(len(prompts))]
    theirs: Tensor = pipe(**said, generator=generators, output_type="pt").images  # (B, C, H, W)
    if settings.sheets:
        from fromnoise.pipeline.pictures import as_pictures, grid

        settings.sheets.mkdir(parents=True, exist_ok=True)
        sheet = grid([*as_pictures(ours * 2 - 1), *as_pictures(theirs * 2 - 1)], len(prompts))
        sheet.save(settings.sheets / f"{run.name}.png")
    return {
        "run": run.name,
        "pipeline": done.layout.pipeline,
        "parts": done.parts,
        "pictures": len(prompts),
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "largest_difference": float((ours - theirs).abs().max()),
        "bytes": sum(files_of(done.folder).values()),
    }


def asked(run: Path, pipeline: Pipeline, count: int) -> tuple[list[str], dict[str, Any]]:
    """Prompts for fromnoise, and the same for diffusers."""
    kind = pipeline.config.conditioner.type
    if kind == "label":
        labels = [i % pipeline.conditioner.classes for i in range(count)]
        return list(map(str, labels)), {"class_labels": labels}
    record = run_of(weights(run))
    words = list(record.training.previews) if record and kind != "none" else []
    prompts = [(words or [""])[i % len(words or [""])] for i in range(count)]
    return prompts, {"prompt": prompts}


if __name__ == "__main__":
    run_main(main)
