"""A run as a folder that `DiffusionPipeline.from_pretrained` opens without a network and without fromnoise."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.files import load_metadata, write_text
from fromnoise.interop.card import card, vae_card
from fromnoise.interop.folder import refuse_used
from fromnoise.interop.layout import Layout, layout_of, left_out
from fromnoise.interop.writer import Writer
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.export import save_vae
from fromnoise.space.folder import CONFIG
from fromnoise.training.directory import run_of


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    layout: Layout
    parts: dict[str, str]  # class of every component
    left_out: list[str]
    usage: str  # Python that opens it


def export(place: Path, folder: Path, *, raw: bool = False, onnx: bool = False, address: str | None = None) -> Exported:
    """Write the model in `place`, as `load` takes it or a VAE's run, to `folder`, which is new or empty.

    raw: the weights as trained, in place of their average. onnx: also write the backbone as onnx/backbone.onnx.
    address: what the card says to open, in place of `folder`.

    Raises:
        ValueError: one line: no model there, `folder` in use, diffusers not installed, or a part that cannot be
            written.
    """
    refuse_used(folder)
    file = weights(place, raw=raw)
    needs_diffusers()
    target = folder.resolve()  # "." has no name, and a link is no directory to put another in the place of
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        if "autoencoder" in load_metadata(file):
            done = write_vae(file, partial, folder, address or folder.as_posix())
        else:
            pipeline = load(place, raw=raw, device="cpu")  # draws as `sample` does, where a sweep has chosen how
            done = write(pipeline, file, partial, folder, address or folder.as_posix())
        if onnx:
            done = done._replace(parts=done.parts | write_onnx(file, partial))
        if target.exists():  # and may be where the user stands: it stays the same directory
            for part in sorted(partial.iterdir()):
                os.replace(part, target / part.name)
        else:
            os.replace(partial, target)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return done


def write(pipeline: Pipeline, file: Path, partial: Path, folder: Path, address: str) -> Exported:
    """Write `pipeline`, whose weights are those of `file`."""
    layout = layout_of(pipeline)
    writer = Writer(pipeline, partial)
    writer.own() if layout.name == "fromnoise" else writer.stock(layout)
    writer.record(run_of(file))
    done = Exported(folder, layout, writer.parts, left_out(pipeline, layout), usage(pipeline, layout, address))
    write_text(partial / "README.md", card(pipeline, done, file))
    return done


def write_vae(file: Path, partial: Path, folder: Path, address: str) -> Exported:
    """Write the VAE of the weights `file`; mean and deviation of its latents are those measured when it was trained."""
    vae = Autoencoder.load(file).vae
    measured, told = [parent / "vae" / CONFIG for parent in file.resolve().parents[:3:2]], {}
    for config in measured:  # beside the file, and in the run that has it as a checkpoint
        told = told or (json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {})
    z = vae.config.latent_channels
    mean, std = told.get("latents_mean", [0.0] * z), told.get("latents_std", [1.0] * z)
    save_vae(vae, partial, torch.tensor(mean), torch.tensor(std), told.get("sample_size", 32))
    lines = ["the loss that it was trained by, and what judged it"]
    if not told:
        lines.append("mean and deviation of its latents: they are measured when its training ends")
    code = ["from diffusers import AutoencoderKL", "", f'vae = AutoencoderKL.from_pretrained("{address}")']
    done = Exported(folder, Layout("vae", "AutoencoderKL"), {}, lines, "\n".join(code))
    write_text(partial / "README.md", vae_card(vae, done, file))
    return done


def write_onnx(file: Path, partial: Path) -> dict[str, str]:
    """Write the backbone as ONNX; the part, and how near it is."""
    if "autoencoder" in load_metadata(file):
        raise ValueError(f"{file} holds a VAE; --onnx is for the backbone of a model that draws")
    from fromnoise.interop.onnx import export_onnx

    (partial / "onnx").mkdir()
    worst = export_onnx(Pipeline.load(file), partial / "onnx" / "backbone.onnx")
    return {"onnx": f"backbone.onnx, within {worst:.1g} in onnxruntime"}


def needs_diffusers() -> None:
    """ValueError, one line, where diffusers is not installed."""
    try:
        import diffusers  # noqa: F401
    except ImportError:
        raise ValueError("this needs diffusers: pip install 'fromnoise[diffusers]'") from None


def usage(pipeline: Pipeline, layout: Layout, address: str) -> str:
    """Python that opens the folder, or the repository, `address` and draws what `fromnoise sample` draws."""
    sampling, kind = pipeline.config.sampling, pipeline.config.conditioner.type
    said = {"label": "class_labels=[0]", "none": ""}.get(kind, 'prompt="a prompt"')
    trust = ", trust_remote_code=True" if layout.name == "fromnoise" else ""
    if trust == "":
        said += f", num_inference_steps={sampling.steps}, guidance_scale={sampling.guidance:g}"
    call = ", ".join(filter(None, [said, "generator=[torch.Generator().manual_seed(0)]"]))
    return "\n".join(
        [
            "import torch",
            "from diffusers import DiffusionPipeline",
            "",
            f'pipe = DiffusionPipeline.from_pretrained("{address}"{trust})',
            f"pipe({call}).images[0]",
        ]
    )
