"""A folder of diffusers' as a run, to draw with, to evaluate and to train on.

Nothing of a folder is ever executed, and only safetensors and JSON are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.config import AutoencoderConfig
from fromnoise.conditioning.config import ConditionerConfig, EncoderConfig, FrozenTextConfig, LabelConfig
from fromnoise.conditioning.folder import complete
from fromnoise.core.config import explain, hint, write_yaml
from fromnoise.data.config import CIFAR10Config, DataConfig, MNISTConfig, ShapesConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.interop.folder import INDEX, RECORD, copy, read_json, read_weights, refuse_used
from fromnoise.interop.own import read_own
from fromnoise.interop.schedules import Drawing, drawing_of
from fromnoise.interop.stock import READERS, Read, time_layer, turned
from fromnoise.models.config import DiTConfig, VAEConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig, PixelConfig, SpaceConfig
from fromnoise.space.folder import CONFIG, WEIGHTS, describe
from fromnoise.training import checkpoint
from fromnoise.training.checkpoint import Progress, State
from fromnoise.training.ema import Ema
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import Run, VAERun


class Text(NamedTuple):
    """Which text encoder of a pipeline is read, and how."""

    slot: str
    padding: Any
    most: int  # tokens, at most


TEXTS = {
    "StableDiffusionPipeline": Text("text_encoder", "read", 77),
    "StableDiffusion3Pipeline": Text("text_encoder_3", "read", 256),
    "PixArtAlphaPipeline": Text("text_encoder", "masked", 120),
    "QwenImagePipeline": Text("text_encoder", "masked", 512),
}
PIPELINES = ("DiTPipeline", *TEXTS)
NOTES = {
    "StableDiffusion3Pipeline": "of its text encoders the T5 alone is read, without the CLIPs and their pooled vector",
    "QwenImagePipeline": "prompts are read as they are, without Qwen-Image's template around them",
}


class Imported(NamedTuple):
    """What was made."""

    directory: Path
    about: str
    notes: list[str]  # in what it is not what diffusers has


def bring(folder: Path, directory: Path, texts: Sequence[str] = (), vae: Path | None = None) -> Imported:
    """Make the run `directory`, new or empty, of the diffusers `folder`: a pipeline, a backbone, or an AutoencoderKL.

    texts: frozen text encoders to condition on, one or more as `EncoderConfig` reads them, in place of the folder's.
    vae: folder of an autoencoder in place of the folder's. Either must be given where a folder has none that fits.

    Raises:
        ValueError: one line: what is missing, foreign or pickled, and what is allowed.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder at {folder}; allowed: one that diffusers or `fromnoise export` wrote")
    refuse_used(directory)
    there = directory.exists()
    try:
        return _bring(folder, directory, texts, vae)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if there:
            directory.mkdir()
        if isinstance(error, ValidationError):
            raise ValueError(f"{folder}: {explain(error)}") from None
        if isinstance(error, KeyError):
            raise ValueError(f"{folder}: one of its JSON files lacks {error.args[0]}") from None
        if isinstance(error, OSError):
            raise ValueError(f"cannot write {directory}: {error.strerror or error}") from None
        raise


def _bring(folder: Path, directory: Path, texts: Sequence[str], vae: Path | None) -> Imported:
    if (folder / RECORD).is_file():
        directory.mkdir(parents=True, exist_ok=True)
        run, pipeline = read_own(folder, directory)
        save(run, pipeline, directory)
        return Imported(directory, f"a run again of what `fromnoise export` wrote ({run.model.backbone.type})", [])
    if (folder / INDEX).is_file():
        return of_pipeline(folder, directory, texts, vae)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"no {INDEX} and no {CONFIG} in {folder}: it is no folder of diffusers'")
    name = read_json(folder / CONFIG).get("_class_name")
    if name == "AutoencoderKL":
        return of_vae(folder, directory)
    if name not in READERS:
        raise ValueError(f"{folder / CONFIG}: _class_name is {name!r}; {hint(str(name), ['AutoencoderKL', *READERS])}")
    return of_parts(folder, directory, {"backbone": folder}, Drawing.usual(name), texts, vae, [])


def of_vae(folder: Path, directory: Path) -> Imported:
    """The run of an AutoencoderKL."""
    read_weights(folder)  # refuses what cannot be read, in the words that are meant for it
    config = describe(folder).config
    assert isinstance(config, VAEConfig), "an AutoencoderKL was asked for"
    data: DataConfig = CIFAR10Config() if config.channels == 3 else MNISTConfig()
    run = VAERun(recipe="imported", model=AutoencoderConfig(vae=config), data=data)
    model = Autoencoder.build(run.model, 0)
    model.vae.import_state(read_weights(folder))
    directory.mkdir(parents=True, exist_ok=True)
    copy(folder, directory / "vae", (CONFIG, WEIGHTS))
    save(run, model, directory)
    return Imported(directory, f"an AutoencoderKL, {config.factor} pixels a cell", [])


def of_pipeline(folder: Path, directory: Path, texts: Sequence[str], vae: Path | None) -> Imported:
    """The run of a pipeline's folder."""
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise ValueError(f"{folder / INDEX}: _class_name is {name!r}; {hint(str(name), PIPELINES)}")
    slots = [slot for slot in ("unet", "transformer") if index.get(slot, [None])[0]]
    if len(slots) != 1 or not (folder / slots[0] / CONFIG).is_file():
        raise ValueError(f"no file {folder / (slots or ['unet'])[0] / CONFIG}: the folder lacks its backbone")
    parts = {"backbone": folder / slots[0]}
    if (folder / "vae").is_dir():
        parts["vae"] = folder / "vae"
    if name in TEXTS and not texts:
        text = TEXTS[name]
        if not (folder / text.slot).is_dir():
            raise ValueError(f"no folder {folder / text.slot}; give text encoders by --text PATH")
        parts["text"] = folder / text.slot
    drawing, notes = drawing_of(folder / "scheduler", name)
    notes += [NOTES[name]] if name in NOTES and not texts else []
    return of_parts(folder, directory, parts, drawing, texts, vae, notes, TEXTS.get(name))


def of_parts(
    folder: Path,
    directory: Path,
    parts: dict[str, Path],
    drawing: Drawing,
    texts: Sequence[str],
    vae: Path | None,
    notes: list[str],
    text: Text | None = None,
) -> Imported:
    """The run of a backbone, with what stands around it."""
    told = read_json(parts["backbone"] / CONFIG)
    cls = told.get("_class_name")
    if cls not in READERS:
        raise ValueError(f"{parts['backbone'] / CONFIG}: _class_name is {cls!r}; {hint(str(cls), READERS)}")
    try:
        read = READERS[cls](told)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{parts['backbone'] / CONFIG}: {error}") from None
    state = read_weights(parts["backbone"])
    directory.mkdir(parents=True, exist_ok=True)
    space = space_of(vae or parts.get("vae"), directory, read)
    conditioner = conditioner_of(parts.get("text"), directory, read, texts, text)
    channels = describe(space.path).config.channels if isinstance(space, LatentConfig) else read.channels
    factor = describe(space.path).config.factor if isinstance(space, LatentConfig) else 1
    model = ModelConfig(
        backbone=read.config,
        conditioner=conditioner,
        space=space,
        path=drawing.path,
        objective=Objective(target=drawing.target, measure=drawing.target),
        sampling=drawing.sampling,
        channels=channels,
        size=read.size * factor,
    )
    pipeline = Pipeline.build(model, [], 0)
    if drawing.counted:  # from the convention in which timestep i is told where 1000 t is i + 1
        slowest = int(isinstance(read.config, DiTConfig))
        state |= {key: turned(state[key], -1.0, slowest) for key in time_layer(state)}
    fill(pipeline, read, state)
    run = Run(recipe="imported", model=model, data=data_of(channels, model.size))
    save(run, pipeline, directory)
    return Imported(directory, f"{cls} ({read.config.type}), {model.size} x {model.size} pixels", notes)


@torch.no_grad()
def fill(pipeline: Pipeline, read: Read, state: dict[str, Tensor]) -> None:
    """Give `pipeline` the weights, and maps that change nothing where diffusers has none."""
    table = read.load(pipeline.backbone, state)
    if table is not None:
        pipeline.conditioner.table.copy_(table)
        return
    (project, *others) = pipeline.conditioner.project
    if project.weight.shape[0] != project.weight.shape[1]:
        source, width = project.weight.shape[::-1]
        raise ValueError(
            f"the text encoder's tokens are {source} wide; this backbone reads {width}: give another by --text"
        )
    for one in (project, *others):
        torch.nn.init.eye_(one.weight)


def space_of(vae: Path | None, directory: Path, read: Read) -> SpaceConfig:
    """Where the backbone's pictures lie; a copy of the autoencoder is kept in the run."""
    if vae is None:
        if read.channels not in (1, 3):
            raise ValueError(f"the backbone draws latents of {read.channels} channels; give their VAE by --vae PATH")
        return PixelConfig()
    read_weights(vae)
    found = describe(vae)
    if found.config.latent_channels != read.channels:
        raise ValueError(
            f"the VAE at {vae} has latents of {found.config.latent_channels} channels; "
            f"the backbone draws {read.channels}"
        )
    copy(vae, directory / "vae", (CONFIG, WEIGHTS))
    return LatentConfig(path=directory / "vae", shift=found.shift or (0.0,), scale=found.scale or (1.0,))


def conditioner_of(
    place: Path | None, directory: Path, read: Read, texts: Sequence[str], text: Text | None
) -> ConditionerConfig:
    """What reads prompts; copies of the folder's own text encoder and tokenizer are kept in the run."""
    if read.classes is not None:
        return LabelConfig(classes=read.classes, width=read.width)
    if texts:
        encoders = tuple(EncoderConfig.model_validate(one) for one in texts)
        return FrozenTextConfig(encoders=encoders, width=read.width)
    if place is None or text is None:
        raise ValueError("a backbone alone reads the tokens of a text encoder; give it by --text PATH")
    source = complete(place)
    target = directory / "text_encoder"
    for files, name in ((source.model, "text_encoder"), (source.tokenizer, "tokenizer")):
        copy(files, directory / name, [file.name for file in source.files if file.parent == files])
    told = read_json(target / CONFIG)
    most = [told.get("max_position_embeddings"), tokenizer_length(directory / "tokenizer"), text.most]
    length = min(number for number in most if number)
    encoder = EncoderConfig(path=str(target), length=length, padding=text.padding)
    return FrozenTextConfig(encoders=(encoder,), width=read.width)


def tokenizer_length(folder: Path) -> int | None:
    """Most tokens that the tokenizer there is told to give, where it is told."""
    file = folder / "tokenizer_config.json"
    return int(read_json(file).get("model_max_length") or 0) or None if file.is_file() else None


def data_of(channels: int, size: int) -> DataConfig:
    """Data of as many channels, to have some: what to train on is chosen when a training begins."""
    if channels == 1:
        return MNISTConfig(size=28 if size <= 28 else 32)
    return ShapesConfig(size=min(max(32, size), 256))


def save(run: Run | VAERun, model: Any, directory: Path) -> None:
    """Write a run that no step has been taken of."""
    training = run.training
    ema, optimizer = Ema(model, training.ema * training.steps), Optimizer(model, training.optimizer)
    checkpoint.save(directory / "checkpoints", State(model, ema, optimizer, Progress()), training.keep)
    write_yaml(run, directory / "run.yaml")
