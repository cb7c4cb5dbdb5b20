"""What the directory of a run tells of it, read as it stands: of a run in training too."""

from __future__ import annotations

import hashlib
import re
import statistics
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.config import read_mapping
from fromnoise.core.files import content_hash, load_metadata, read_object
from fromnoise.evaluation import cost
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.place import list_checkpoints
from fromnoise.training import reference
from fromnoise.training.checkpoint import WEIGHTS
from fromnoise.training.environment import read_environment
from fromnoise.training.log import read_metrics
from fromnoise.training.run import Run, VAERun, read_run

EVALUATION = "evaluation.json"
CIFAR10_SIDE = 32  # of the only pictures whose size no setting tells

Tree = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A run as its directory has it."""

    directory: Path
    run: Run | VAERun
    logged: list[Tree]  # lines of metrics.jsonl: of training
    validated: list[Tree]  # and of validation
    choices: Tree  # of measured.yaml; empty before it is there
    environment: list[Tree]  # a line for each time the training began or went on
    evaluation: Tree | None  # what `fromnoise evaluate` found last
    previews: dict[int, Path]  # by step
    checkpoint: Path | None  # the last one

    @property
    def name(self) -> str:
        """What a reader calls it."""
        return self.directory.resolve().name

    @property
    def steps(self) -> int:
        """Optimizer steps that are known to be done."""
        lines = [*self.logged[-1:], *self.validated[-1:]]
        return max((line["step"] for line in lines), default=0)

    @property
    def done(self) -> bool:
        """Whether it took all steps planned."""
        return self.steps >= self.run.training.steps

    @property
    def drawn_otherwise(self) -> str:
        """What was unlike the run's own settings when pictures were drawn for its evaluation; empty for nothing."""
        drawing = (self.evaluation or {}).get("drawing", {})
        own = self.run.model.sampling.model_dump(mode="json") if isinstance(self.run, Run) else {}
        unlike = [key for key in own if key in drawing and drawing[key] != own[key]]
        said = ", ".join(f"{key} {drawing[key]} (run.yaml: {own[key]})" for key in unlike)
        return f"Its pictures were drawn for evaluation otherwise than by run.yaml: {said}." if said else ""

    @cached_property
    def costs(self) -> Tree:
        """What the training took so far: steps, pictures, seconds, speed; None for what is not known yet."""
        lines = self.logged
        batch = self.choices.get("batch", self.run.training.batch)
        told: Tree = {"steps": self.steps, "batch": batch, "pictures": self.steps * batch}
        told["seconds"] = lines[-1]["seconds"] if lines else None
        for key in ("images_per_second", "waiting_for_data", "flop_utilisation"):
            known = [line[key] for line in lines if key in line]
            told[key] = statistics.median(known) if known else None
        return told

    @cached_property
    def sizes(self) -> Tree:
        """Parameters, and the FLOPs of training on one picture, as its checkpoint has them; "why" where it has none."""
        if self.checkpoint is None:
            return {"why": "there is no checkpoint yet"}
        try:
            if isinstance(self.run, VAERun):
                model = Autoencoder.load(weights(self.directory))
                flops = cost.reconstruction_flops(model, dict(self.run.data).get("size", CIFAR10_SIDE))
                return {"parameters": sum(p.numel() for p in model.parameters()), "training_flops": flops}
            pipeline = load(self.directory, device="cpu")
            return {"parameters": cost.parameters(pipeline), "training_flops": cost.training_flops(pipeline)}
        except ValueError as error:  # as when a VAE or an encoder that it needs is not here
            return {"why": str(error)}

    @cached_property
    def hashes(self) -> Tree:
        """What identifies the run, its weights, and what it learned from and with: sha256 (hex) each."""
        told: Tree = {"settings that decide its losses": reference.fingerprint(self.run)}
        data = dict(self.run.data)
        parts = [next(lines) for _, lines in groupby(self.environment, key=lambda line: line["held_out"])]
        for line in parts:
            since = f", from step {line['step']:,}" if len(parts) > 1 else ""
            told[f"held-out pictures{since}"] = line["held_out"]
        if data.get("sha256"):
            told["data learned from"] = data["sha256"]
        if self.checkpoint is None:
            return told
        for name in WEIGHTS:
            file = self.checkpoint / f"{name}.safetensors"
            told[f"{self.checkpoint.name}/{file.name}"] = content_hash(file)
        metadata = load_metadata(self.checkpoint / "ema.safetensors")
        states = {"state": "tokenizer and encoders", "space": "latent space"}
        for key, what in states.items():
            if metadata.get(key, "{}") != "{}":
                told[what] = hashlib.sha256(metadata[key].encode()).hexdigest()
        return told


def read(directory: Path) -> Record:
    """What `directory` holds.

    Raises:
        ValueError: one line, when it is no run's directory, or a file in it cannot be read.
    """
    if not (directory / "run.yaml").is_file():
        what = "has no run.yaml" if directory.is_dir() else "is no directory"
        raise ValueError(f"{directory} {what}; allowed: the directory of a run that `fromnoise train` began")
    lines = read_metrics(directory / "metrics.jsonl")
    measured, judged = directory / "measured.yaml", directory / EVALUATION
    checkpoints = list_checkpoints(directory / "checkpoints")
    sheets = [path for path in (directory / "previews").glob("step-*.png") if re.fullmatch(r"step-\d{8,}", path.stem)]
    return Record(
        directory=directory,
        run=read_run(directory / "run.yaml"),
        logged=[line for line in lines if "loss" in line],
        validated=[line for line in lines if "validation_raw" in line],
        choices=read_mapping(measured) if measured.is_file() else {},
        environment=read_environment(directory),
        evaluation=_evaluation(judged) if judged.is_file() else None,
        previews={int(sheet.stem.removeprefix("step-")): sheet for sheet in sorted(sheets)},
        checkpoint=checkpoints[-1] if checkpoints else None,
    )


def _evaluation(file: Path) -> Tree:
    try:
        return read_object(file)
    except ValueError as error:
        raise ValueError(f"{error}; fromnoise evaluate writes it anew") from None
