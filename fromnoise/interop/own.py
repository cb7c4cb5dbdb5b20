"""A folder that `fromnoise export` wrote, back as the run it is of, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fromnoise.conditioning.config import FrozenTextConfig
from fromnoise.core.config import explain
from fromnoise.core.files import load_tensors, save_tensors, write_text
from fromnoise.interop.fold import refolded
from fromnoise.interop.folder import INDEX, ORIGINALS, RECORD, copy, read_json, read_weights
from fromnoise.interop.stock import READERS
from fromnoise.models.config import TinyConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig
from fromnoise.space.folder import CONFIG, WEIGHTS, describe
from fromnoise.training.run import Run


def read_own(folder: Path, directory: Path) -> tuple[Run, Pipeline]:
    """The run and the pipeline of the exported `folder`; copies of its autoencoder and text encoders are kept in
    `directory`.

    Raises:
        ValueError: one line: something is missing, or was changed after the export where only both halves of a weight
            could tell what it was.
    """
    record = read_json(folder / RECORD)
    try:
        run = Run.model_validate(record["run"]) if record["run"] else Run(recipe="imported")
        model = ModelConfig.model_validate(record["model"])
    except (KeyError, ValidationError) as error:
        what = explain(error) if isinstance(error, ValidationError) else f"it says nothing of {error}"
        raise ValueError(f"{folder / RECORD}: {what}") from None
    folded = isinstance(read_json(folder / INDEX)["_class_name"], str)  # into a pipeline of diffusers'
    if isinstance(model.space, LatentConfig):
        model = model.model_copy(update={"space": space(folder, directory, model.space, record["space"], folded)})
    if isinstance(model.conditioner, FrozenTextConfig):
        model = model.model_copy(update={"conditioner": conditioner(folder, directory, model.conditioner)})
    pipeline = Pipeline(model, model.conditioner.restore(record["conditioner"]), model.space.build())
    slot = "unet" if (folder / "unet").is_dir() else "transformer"
    stock, originals = read_weights(folder / slot), {}
    if (folder / ORIGINALS).is_file():
        originals, _ = load_tensors(folder / ORIGINALS)
    fill(pipeline, folder, slot, stock, originals)
    if originals and not same(refolded(pipeline, folded), stock):
        raise ValueError(
            f"{folder / slot} was changed after the export, and {ORIGINALS} was not: remove {RECORD} and {ORIGINALS} "
            f"to import it as any other folder of diffusers'"
        )
    return run.model_copy(update={"model": model}), pipeline


@torch.no_grad()
def fill(pipeline: Pipeline, folder: Path, slot: str, stock: dict[str, Tensor], originals: dict[str, Tensor]) -> None:
    """Give `pipeline` its weights; `originals` go before what a stock class has made of them."""
    told = read_json(folder / slot / CONFIG)
    cls = told["_class_name"]
    if cls in READERS:
        before = {key.removeprefix("backbone."): value for key, value in originals.items()}
        state = {key: before.get(key, value) for key, value in stock.items()}
        READERS[cls](told).load(pipeline.backbone, state)
    else:
        pipeline.backbone.load_state_dict({key.removeprefix("network."): value for key, value in stock.items()})
    if (folder / "conditioner").is_dir() and not any(key.startswith("conditioner.") for key in originals):
        held = read_weights(folder / "conditioner")
        if pipeline.config.conditioner.type == "none":
            held = {"token": held["table"][0]}
        pipeline.conditioner.load_state_dict(held)
    unknown = pipeline.load_state_dict(originals, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{folder / ORIGINALS} holds {unknown[0]}, which this run has not")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are the same bits."""
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def space(folder: Path, directory: Path, config: LatentConfig, state: dict[str, Any], folded: bool) -> LatentConfig:
    """The latents of a copy of the folder's autoencoder, which moves and scales them itself where it was `folded`."""
    told = read_json(folder / "vae" / CONFIG)
    target = directory / "vae"
    if "settings" in told:  # fromnoise's own class of it
        tiny = TinyConfig.model_validate(told["settings"])
        weights = {key.removeprefix("network."): value for key, value in read_weights(folder / "vae").items()}
        target.mkdir()
        save_tensors(target / WEIGHTS, weights, {"format": "pt"})
        write_text(target / CONFIG, json.dumps(tiny_config(tiny), indent=2) + "\n")
    else:
        read_weights(folder / "vae")
        copy(folder / "vae", target, (CONFIG, WEIGHTS))
    describe(target)
    moved = (0.0,), (1.0,)
    shift, scale = moved if folded else (tuple(state["shift"]), tuple(state["scale"]))
    return config.model_copy(update={"path": target, "shift": shift, "scale": scale})


def tiny_config(config: TinyConfig) -> dict[str, Any]:
    """The config.json of an AutoencoderTiny."""
    return {
        "_class_name": "AutoencoderTiny",
        "in_channels": config.channels,
        "out_channels": config.channels,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": [config.width] * len(config.encoder_layers),
        "decoder_block_out_channels": [config.width] * len(config.decoder_layers),
        "num_encoder_blocks": list(config.encoder_layers),
        "num_decoder_blocks": list(config.decoder_layers),
        "use_midblock_gn": config.midblock_norm,
    }


def conditioner(folder: Path, directory: Path, config: FrozenTextConfig) -> FrozenTextConfig:
    """The same text encoders, from copies."""
    encoders = []
    for i, encoder in enumerate(config.encoders):
        suffix = f"_{i + 1}" if i else ""
        for name in ("text_encoder", "tokenizer"):
            place = folder / (name + suffix)
            if not place.is_dir():
                raise ValueError(f"no folder {place}")
            copy(place, directory / place.name, [file.name for file in place.iterdir() if file.is_file()])
        encoders.append(encoder.model_copy(update={"path": str(directory / f"text_encoder{suffix}")}))
    return config.model_copy(update={"encoders": tuple(encoders)})
