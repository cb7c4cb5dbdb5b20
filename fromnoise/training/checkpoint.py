"""Checkpoints that are whole or not there: `checkpoints/step-00000500/{model,ema,optimizer}.safetensors`.

A checkpoint is written under a hidden name, synced, and then renamed, so that no kill can leave half of one. The
optimizer's file also records the progress and the hashes of the two others; its own hash covers all that.

Where several processes train, model and average are whole all the same, but each process writes its part of the
optimizer's state: the first one optimizer.safetensors, which records the hashes of all others, number 1
optimizer-00001.safetensors, and so on. A file tells with which row its part of a tensor begins. They are read as one,
by any number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fromnoise.conditioning.folder import EncoderFault
from fromnoise.core.files import (
    content_hash,
    load_metadata,
    load_tensors,
    read_tensor,
    save_tensors,
    sync_directory,
    tensor_names,
)
from fromnoise.core.ranks import Ranks
from fromnoise.pipeline.place import list_checkpoints
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
    try:
        begin(partial)
        save_weights(partial, model, ema, progress.step)
        save_tensors(partial / "optimizer.safetensors", optimizer.tensors(), told(partial, progress))
        finish(partial, path, keep)
    except (OSError, ValueError) as error:
        raise ValueError(failed(partial, progress.step, error)) from None
    return path


def begin(partial: Path) -> None:
    """Make the hidden directory that a checkpoint is written in."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def save_weights(partial: Path, model: Model, ema: Ema, step: int) -> None:
    """Write the weights as they are, and their average."""
    model.save(partial / "model.safetensors", {"step": str(step), "weights": "raw"})
    with ema.applied():
        model.save(partial / "ema.safetensors", {"step": str(step), "weights": "ema"})


def told(partial: Path, progress: Progress) -> dict[str, str]:
    """What the optimizer's file records beside its tensors: the progress, and the hashes of the files in `partial`."""
    names = [*WEIGHTS, *(file.stem for file in sorted(partial.glob("optimizer-*.safetensors")))]
    hashes = {name: content_hash(partial / f"{name}.safetensors") for name in names}
    return {"progress": json.dumps(asdict(progress)), "weights": json.dumps(hashes)}


def finish(partial: Path, path: Path, keep: int) -> None:
    """Give a checkpoint that is written its name, then drop all but the last `keep`."""
    os.replace(partial, path)
    sync_directory(path.parent)
    for old in list_checkpoints(path.parent)[:-keep]:
        drop(old)


def failed(partial: Path, step: int, error: object) -> str:
    """What to tell of a checkpoint that cannot be written; what there is of it is removed."""
    shutil.rmtree(partial, ignore_errors=True)
    kept = list_checkpoints(partial.parent)
    intact = f"{kept[-1]} is intact" if kept else "there is no earlier one"
    return f"checkpoint of step {step}: {error}; {intact}; the same command goes on"


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
    """Take up the average and the optimizer's state; the progress. ValueError as in `load_model`. Of several processes
    all have to call."""
    try:
        progress, parts = _verified(path, optimizer.parallel.ranks)
        ema.load(Parts([path / "ema.safetensors"]))
        optimizer.load(Parts(parts))
        return progress
    except (ValueError, KeyError) as error:
        raise ValueError(_damaged(path, str(error))) from None


def _verified(path: Path, ranks: Ranks) -> tuple[Progress, list[Path]]:
    """The progress, and the files of the optimizer's state, once all files are found to be what was written: each
    process reads some of them, as reading all takes minutes where a model is large. ValueError where they are not."""
    fault, progress, parts = "", Progress(), [path / "optimizer.safetensors"]
    try:
        progress = read_progress(parts[0])
        hashes = json.loads(load_metadata(parts[0])["weights"])
        for name, expected in hashes.items():
            if content_hash(path / f"{name}.safetensors") != expected:
                raise ValueError(f"{name}.safetensors is not the one written with it")
        parts += [path / f"{name}.safetensors" for name in hashes if name not in WEIGHTS]
        for file in [path / "ema.safetensors", *parts][ranks.rank :: ranks.size]:  # the model's has been read
            load_tensors(file)
    except (ValueError, KeyError) as error:
        fault = str(error)
    if fault := ranks.fault(fault):
        raise ValueError(fault)
    return progress, parts


def read_progress(file: Path) -> Progress:
    """What an optimizer's file records; ValueError in one line where it is not known."""
    told = load_metadata(file)["progress"]
    try:
        return Progress(**json.loads(told))
    except (ValueError, TypeError):
        raise ValueError(f"{file} is damaged: its progress is {textwrap.shorten(told, 60)}") from None


class Parts(Mapping[str, Tensor]):
    """The tensors of files that hold parts of them, by rows; each is read, and put together, when it is asked for."""

    def __init__(self, files: Sequence[Path]):
        self.found: dict[str, list[tuple[int, Path]]] = {}
        for file in files:
            firsts = json.loads(load_metadata(file).get("firsts", "{}"))
            for name in tensor_names(file):
                self.found.setdefault(name, []).append((firsts.get(name, 0), file))

    def __getitem__(self, name: str) -> Tensor:
        parts = [read_tensor(file, name) for _, file in sorted(self.found[name])]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def _damaged(path: Path, reason: str) -> str:
    earlier = [other for other in list_checkpoints(path.parent) if other.name < path.name]
    start = f"from {earlier[-1].name}" if earlier else "from the start"
    return f"damaged checkpoint {path}: {reason}; to go on {start}, remove that directory"
