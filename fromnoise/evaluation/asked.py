"""What a comparison is asked for. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from fromnoise.core.config import Config

Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Judged = Literal["auto", "shapes", "mnist", "cifar10"]
"""Whose pictures a judge expects, by the type of the data set."""


class Asked(Config):
    """What must be equal, and how closely to look."""

    seeds: PositiveInt = 1
    """Trainings of each recipe, from seeds 0, 1, ...; two or more give confidence intervals."""
    match: Literal["parameters", "compute", "none"] = "parameters"
    """What must be equal: parameters (and pictures trained on), compute (training steps are derived from FLOPs), or
    nothing."""
    training_steps: PositiveInt | None = None
    """Training steps of every recipe, in place of its own; with equal compute, of the first."""
    judge: Judged = "auto"
    """Whose pictures are expected; auto goes by the data that the recipes share."""
    samples: Annotated[int, Field(ge=10)] = 1000
    """Pictures judged of each run, drawn as its recipe draws."""
    sweep: Annotated[int, Field(ge=10)] = 200
    """Pictures judged at each number of steps, and at each guidance scale."""
    steps: Steps | None = None
    """Steps from noise to picture in place of each recipe's own, where steps are not what is varied."""
    speeds: tuple[Steps, ...] = (10, 25, 50, 100)
    """Numbers of steps at which speed and quality are measured."""
    guidances: tuple[Guidance, ...] = (1.0, 2.0, 4.0, 7.5)
    """Guidance scales of the sweep."""
    seed: NonNegativeInt = 0
    """Noise of the first picture; the next ones count on from it."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
