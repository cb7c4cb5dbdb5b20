"""A run: one frozen tree of typed settings, written to run.yaml and read back from it. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fromnoise.autoencoder.config import AutoencoderConfig
from fromnoise.core.config import Config, Kind, Seed, read_mapping, read_yaml
from fromnoise.data.config import DATASETS, DataConfig, ShapesConfig
from fromnoise.pipeline.config import ModelConfig


class AdamW(Config):
    """AdamW for every parameter (Loshchilov and Hutter 2019)."""

    type: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 2e-3
    """Peak learning rate."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Decay of the second moment."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of matrices."""


class Muon(Config):
    """Muon for matrices and convolutions of blocks and layers (Jordan et al. 2024; scale: Liu et al. 2025), AdamW
    elsewhere."""

    type: Literal["muon"] = "muon"
    lr: PositiveFloat = 4e-3
    """Peak learning rate of the matrices; updates are scaled to AdamW's RMS."""
    adamw_lr: PositiveFloat = 2e-3
    """Peak learning rate of everything else."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Nesterov momentum of the matrices."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Decay of AdamW's second moment."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of matrices."""


OPTIMIZERS: list[type[Config]] = [AdamW, Muon]


class TrainingBase(Config):
    """How long, how fast and with what care."""

    steps: PositiveInt = 2000
    """Optimizer steps planned."""
    batch: NonNegativeInt = 64
    """Pictures an optimizer step sees; 0 finds the largest that fits (or runs fastest, on a CPU)."""
    accumulate: PositiveInt = 1
    """Equal parts the batch is split into, to save memory."""
    recompute: bool = False
    """Keep only what each block is given, and compute the rest again in the backward (gradient checkpointing): much
    less memory, for the operations of one more forward."""
    optimizer: Annotated[AdamW | Muon, Kind(OPTIMIZERS)] = Muon()
    warmup: NonNegativeInt = 100
    """Steps over which the learning rate rises from 0."""
    decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the steps, at the end, over which the learning rate falls to 0 (cosine)."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Length of the weight average, as a share of the steps planned."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; auto measures which is faster on this device."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto compiles when the steps planned repay it."""
    parallel: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """What processes that torchrun started hold: a copy of the model each, a share of its weights each, or shares on
    every machine and copies between machines."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    seed: Seed = 0
    """Decides the initial weights, the order of the data and all noise."""
    log_every: PositiveInt = 20
    """Steps between lines of metrics.jsonl."""
    save_every: PositiveInt = 500
    """Steps between checkpoints."""
    keep: PositiveInt = 2
    """Checkpoints kept."""
    validate_every: PositiveInt = 500
    """Steps between validation losses."""
    preview_every: PositiveInt = 500
    """Steps between preview grids."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra)."""

    @property
    def every(self) -> tuple[int, int, int, int]:
        """How many steps lie between two at which something is told of them, or made of their weights."""
        return self.log_every, self.validate_every, self.preview_every, self.save_every

    def due(self, step: int, *every: int) -> bool:
        """Whether after `step` steps comes any of what comes every so many, and at the end."""
        return step == self.steps or any(step % each == 0 for each in every)


class Training(TrainingBase):
    """How long, how fast and with what care."""

    previews: tuple[str, ...] = ()
    """Prompts of the preview grid; none takes the first validation captions."""


class Start(Config):
    """The weights that training begins with: drawn by chance, or those of a trained run of the same architecture, at
    another size of pictures as a rule."""

    run: Path | None = None
    """Directory of the run whose averaged weights and vocabulary are taken; left out, weights are drawn by chance."""
    adapt: bool = True
    """Derive for the new size what is still as it was in that run: batch, shift of times and steps, guidance interval,
    grid of learned places."""


class Run(Config):
    """Everything that decides a training run."""

    recipe: str = "custom"
    """Name of the recipe this began as."""
    data: Annotated[DataConfig, Kind(DATASETS)] = ShapesConfig()
    model: ModelConfig = ModelConfig()
    start: Start = Start()
    training: Training = Training()


class VAERun(Config):
    """Everything that decides the training of a VAE."""

    type: Literal["vae"] = "vae"
    """What tells its record from that of a `Run`."""
    recipe: str = "custom"
    """Name of the recipe this began as."""
    data: Annotated[DataConfig, Kind(DATASETS)] = ShapesConfig()
    model: AutoencoderConfig = AutoencoderConfig()
    training: TrainingBase = TrainingBase()


def read_run(path: Path) -> Run | VAERun:
    """The run recorded in the YAML file `path`, which stands in the run's directory.

    Raises:
        ValueError: one line naming the file and what in it is wrong.
    """
    if read_mapping(path).get("type") == "vae":
        return read_yaml(VAERun, path)
    run = read_yaml(Run, path)
    return run.model_copy(update={"model": run.model.moved(path.parent)})
