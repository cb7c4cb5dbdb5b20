"""What a comparison or a sweep is asked for. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from fromnoise.core.config import Config, Name, Seed
from fromnoise.diffusion.sample import SAMPLERS

Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Judged = Literal["auto", "shapes", "mnist", "cifar10"]
"""Whose pictures a judge expects, by the type of the data set."""


def _checked_interval(text: str) -> str:
    low, high = times_between(text)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"given {text!r}; allowed: two times from 0 to 1, the lower first, as in 0-0.8")
    return text


def times_between(text: str) -> tuple[float, float]:
    """ "0.2-0.8" as two numbers; ValueError where it is none."""
    found = re.fullmatch(r"(\d*\.?\d+)-(\d*\.?\d+)", text)
    if not found:
        raise ValueError(f"given {text!r}; allowed: LOW-HIGH, as in 0-0.8")
    return float(found[1]), float(found[2])


class SweepAsked(Config):
    """Which settings of drawing are tried on a finished run, and how the best is found."""

    guidances: tuple[Guidance, ...] = (1.0, 2.0, 3.0, 4.5)
    """Guidance scales."""
    steps: tuple[Steps, ...] = (8, 16, 32)
    """Numbers of steps."""
    samplers: tuple[Annotated[str, Name(SAMPLERS)], ...] = ()
    """Samplers; none takes the run's own and dpmpp_2m."""
    intervals: tuple[Annotated[str, AfterValidator(_checked_interval)], ...] = ()
    """Times between which guidance is applied, LOW-HIGH, as in 0-1 0.2-0.8; none takes the run's own."""
    by: Literal["auto", "accuracy", "frechet"] = "auto"
    """What tells which setting is best; auto takes the Frechet distance where the judge has one."""
    samples: Annotated[int, Field(ge=10)] = 200
    """Pictures judged at each setting, the same prompts and noise at all."""
    seed: Seed = 0
    """Noise of the first picture; the next ones count on from it."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


class FieldsAsked(Config):
    """How runs that differ in some fields are trained and judged."""

    seeds: PositiveInt = 3
    """Trainings of each, from seeds 0, 1, ...; those of one seed see the same pictures in the same order. With fewer
    than three, hardly any difference can be told from chance."""
    samples: Annotated[int, Field(ge=10)] = 200
    """Pictures judged of each run, drawn as its recipe draws."""
    seed: Seed = 0
    """Noise of the first picture judged; the next ones count on from it."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


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
    seed: Seed = 0
    """Noise of the first picture; the next ones count on from it."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
