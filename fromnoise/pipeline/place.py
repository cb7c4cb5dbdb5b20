"""What lies where a user points at: the file of weights, and how its model draws. Free of torch."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from fromnoise.core.config import explain, read_yaml
from fromnoise.core.files import load_metadata
from fromnoise.diffusion.sample import WITH_ETA
from fromnoise.pipeline.config import ModelConfig, Sampling

SAMPLING = "sampling.yaml"
"""In a run directory: how to draw in place of what the checkpoint says, as a sweep has chosen it; all keys or some."""


def shipped() -> Path:
    """The file of the model that comes with fromnoise: coloured shapes by prompt.

    Raises:
        ValueError: one line, when this copy came without.
    """
    path = Path(str(files("fromnoise") / "assets" / "shapes.safetensors"))
    if not path.is_file():
        raise ValueError("this copy of fromnoise came without a model: name a run first, as in runs/shapes")
    return path


def weights(place: str | os.PathLike[str], *, raw: bool = False) -> Path:
    """The file that `load` reads; arguments and errors alike."""
    path = Path(place)
    if path.is_file():
        if raw:
            raise ValueError(f"{path} is one file of weights: raw ones are kept in run and checkpoint directories only")
        return path
    if not path.exists():
        raise ValueError(f"nothing at {path}; allowed: a run directory, a checkpoint directory, a .safetensors file")
    name = "model.safetensors" if raw else "ema.safetensors"
    if (path / name).is_file():
        return path / name
    checkpoints = list_checkpoints(path / "checkpoints")
    if not checkpoints:
        raise ValueError(f"no checkpoint in {path}: train it first, or point at a directory that holds {name}")
    return checkpoints[-1] / name


def list_checkpoints(root: Path) -> list[Path]:
    """The checkpoints in `root`, oldest first; empty where there is no such directory."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if re.fullmatch(r"step-\d{8,}", path.name))


def directory_of(weights: Path) -> Path | None:
    """The directory of the run that a file of weights is from; None where only the file is known."""
    return next((parent for parent in weights.resolve().parents[:3] if (parent / "run.yaml").is_file()), None)


def chosen_sampling(place: str | os.PathLike[str], usual: Sampling) -> Sampling | None:
    """How a sweep has chosen that the run in `place` draws, what it leaves out as in `usual`, the checkpoint's; None
    where none has. ValueError as in `load`."""
    file = Path(place) / SAMPLING
    if not file.is_file():
        return None
    chosen = read_yaml(Sampling, file)
    given = {name: getattr(chosen, name) for name in chosen.model_fields_set}
    if "sampler" in given and chosen.sampler not in WITH_ETA:
        given.setdefault("eta", 0.0)  # the checkpoint's is for its own sampler
    return usual.model_copy(update=given)


def recorded_config(path: str | os.PathLike[str], metadata: dict[str, str]) -> ModelConfig:
    """The config in the `metadata` of the file of weights at `path`; ValueError in one line where it holds none."""
    if "autoencoder" in metadata:
        vae = (directory_of(Path(path)) or Path("RUN")) / "vae"
        raise ValueError(
            f"{path} holds a VAE, which draws nothing by itself; train a model in its latents, with "
            f"--model.space.type latent --model.space.path {vae}"
        )
    if "config" not in metadata:
        raise ValueError(f"{path} holds no pipeline: its metadata has no config")
    try:
        config = ModelConfig.model_validate_json(metadata["config"])
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    directory = directory_of(Path(path))
    return config.moved(directory) if directory else config


def config_at(place: str | os.PathLike[str]) -> ModelConfig:
    """The config of the model in `place`, as `load` would draw with it, without reading its weights; errors alike."""
    file = weights(place)
    config = recorded_config(file, load_metadata(file))
    sampling = chosen_sampling(place, config.sampling)
    return config.model_copy(update={"sampling": sampling}) if sampling else config
