"""Checkpoints that are whole or not there: `checkpoints/step-00000500/{model,ema,optimizer}.safetensors`.

A checkpoint is written under a hidden name, synced, and then renamed, so that no kill can leave half of one. The
optimizer's file also records the progress and the hashes of the two others; its own hash covers all that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from fromnoise.conditioning.folder import EncoderFault
from fromnoise.core.files import content_hash, load_tensors, save_tensors, sync_directory
from fromnoise.space.folder import VAEFault
from fromnoise.training.ema import Ema
from fromnoise.training.optim import Optimizer
from fromnoise.training.trainee import Model

WEIGHTS = ("model", "ema")


@dataclass
class Progress:
    """What a training is at, beside its tensors. All randomness is a function of the seed and the step."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Time spent, stops left out."""
    losses: list[float] = field(default_factory=list)
    """Losses of the steps that no line of metrics.jsonl tells of yet."""


class State(NamedTuple):
    """All that a training changes."""

    model: Model
    ema: Ema
    optimizer: Optimizer
    progress: Progress


def name_of(step: int) -> str:
    """Name of the directory of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def list_checkpoints(root: Path) -> list[Path]:
    """The checkpoints in `root`, oldest first."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if re.fullmatch(r"step-\d{8,}", path.name))


def steps_done(root: Path) -> int:
    """Optimizer steps before the last checkpoint in `root`; 0 where there is none."""
    saved = list_checkpoints(root)
    return int(saved[-1].name.removeprefix("step-")) if saved else 0


def save(root: Path, state: State, keep: int) -> Path:
    """Write the checkpoint of `state` into `root`, then drop all but the last `keep`.

    Raises:
        ValueError: one line, when it cannot be written; the checkpoints before it stay as they are.
    """
    model, ema, optimizer, progress = state
    path = root / name_of(progress.step)
    partial = root / f".{path.name}.partial"
    step = {"step": str(progress.step)}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model.save(partial / "model.safetensors", step | {"weights": "raw"})
        with ema.applied():
            model.save(partial / "ema.safetensors", step | {"weights": "ema"})
        hashes = {name: content_hash(partial / f"{name}.safetensors") for name in WEIGHTS}
        told = {"progress": json.dumps(asdict(progress)), "weights": json.dumps(hashes)}
        save_tensors(partial / "optimizer.safetensors", optimizer.tensors(), told)
        os.replace(partial, path)
        sync_directory(root)
    except (OSError, ValueError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        kept = list_checkpoints(root)
        intact = f"{kept[-1]} is intact" if kept else "there is no earlier one"
        raise ValueError(f"checkpoint of step {progress.step}: {error}; {intact}; the same command goes on") from None
    for old in list_checkpoints(root)[:-keep]:
        drop(old)
    return path


def drop(path: Path) -> None:
    """Remove a checkpoint: at once for whoever lists them, then from the disk."""
    gone = path.with_name(f".{path.name}.gone")
    os.replace(path, gone)
    shutil.rmtree(gone)


def sweep(root: Path) -> None:
    """Remove what a kill left of checkpoints that were being written or dropped."""
    for path in root.glob(".step-*"):
        shutil.rmtree(path)


def load_model(path: Path, load: Callable[[Path], Model]) -> Model:
    """The raw weights of the checkpoint `path`, on the CPU, as `load` reads their file.

    Raises:
        ValueError: one line, naming what is wrong with the checkpoint and what to do, or with the VAE or text encoder
            that it needs.
    """
    try:
        return load(path / "model.safetensors")
    except (VAEFault, EncoderFault):
        raise
    except ValueError as error:
        raise ValueError(_damaged(path, str(error))) from None


def load_rest(path: Path, ema: Ema, optimizer: Optimizer) -> Progress:
    """Take up the average and the optimizer's state; the progress. ValueError as in `load_model`."""
    try:
        state, metadata = load_tensors(path / "optimizer.safetensors")
        average, _ = load_tensors(path / "ema.safetensors")
        for name, expected in json.loads(metadata["weights"]).items():
            if content_hash(path / f"{name}.safetensors") != expected:
                raise ValueError(f"{name}.safetensors is not the one written with it")
        ema.load(average)
        optimizer.load(state)
    except (ValueError, KeyError) as error:
        raise ValueError(_damaged(path, str(error))) from None
    return Progress(**json.loads(metadata["progress"]))


def _damaged(path: Path, reason: str) -> str:
    earlier = [other for other in list_checkpoints(path.parent) if other.name < path.name]
    start = f"from {earlier[-1].name}" if earlier else "from the start"
    return f"damaged checkpoint {path}: {reason}; to go on {start}, remove that directory"
