"""What an evaluation is asked for. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from fromnoise.core.config import Config, Seed
from fromnoise.evaluation.comparison.asked import Judged

Measure = Literal["auto", "judge", "features", "clipscore", "neighbours", "listening", "floor"]


class Wanted(Config):
    """What to measure. What is left out is as the model has it."""

    samples: Annotated[int, Field(ge=6)] = 1000
    """Pictures drawn, 6 or more, for shapes have six tasks: prompts are shared evenly by the tasks, or by the classes,
    or are validation captions in turn."""
    measure: Annotated[tuple[Measure, ...], Field(min_length=1)] = ("auto",)
    """What to measure: judge (is it what was asked for?), features (distances, precision, recall, density, coverage),
    clipscore, neighbours (copies of training pictures), listening (does the prompt matter?), floor (loss by time beside
    the best there can be); auto measures all that these data allow."""
    features: Annotated[tuple[str, ...], Field(min_length=1)] = ("auto",)
    """What sees the pictures: mnist or cifar10 (the classifiers that came with fromnoise), pixels, the folder or hub
    name of a CLIP or DINO, Inception's .safetensors; auto is the classifier of these data, pixels where there is none.
    A CLIP also gives CLIPScore."""
    real: Annotated[int, Field(ge=20)] = 5000
    """Real pictures, at most, that drawn ones are compared with; the floor takes as many others as are drawn."""
    reference: Path | None = None
    """Features of real pictures that an evaluation kept (RUN/features/NAME.safetensors), in place of the data's own."""
    judge: Judged = "auto"
    """Whose pictures are expected; auto goes by the data of the run, and of weights without a run takes mnist for one
    channel, shapes otherwise."""
    seed: Seed = 0
    """Chooses the prompts and the noise."""
    steps: int | None = None
    """Steps from noise to picture, 1 to 1000."""
    guidance: float | None = None
    """Guidance scale: 0 ignores the prompt, 1 follows it, more follows it harder, up to 100."""
    batch: PositiveInt = 64
    """Pictures drawn together."""
    sheets: Path | None = None
    """Of shapes: directory for failures.png and disputed.png, on which the two judges part."""
    raw: bool = False
    """Measure the weights as trained, in place of their average."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
