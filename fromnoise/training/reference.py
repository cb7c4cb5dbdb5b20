"""Reference curves: how the losses of a recipe go where all is well, and whether a run in training goes as well.

A curve is made from whole runs of a recipe by `python -m benchmarks.curves`. Losses are compared as logarithms, since
their scatter grows with them. At a step a curve has a mean, and a band of `WIDTH` standard deviations around it, whose
variance is the sum of two:

    noise^2 window / n      how far the mean of n losses lies from its trend in one run, by chance: known of the
                            `window` losses that a line of the curve's runs is the mean of, and falling as 1 / n
    spread^2                how far the trend of a further seed lies from the curve: measured where the curve is made
                            from several seeds, else assumed, which it says of itself

A validation loss is of samples that never change, so that only the second is left.

An average that is lost costs little of either loss. So the curve also has the ratio of both validation losses, averaged
weights to those as they are: its mean over the n validations so far has a band of the same two parts. And where two
sets of weights have the same loss to the last bit, they are one.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import PositiveInt

from fromnoise.core.config import Config
from fromnoise.data.config import OWN_DATA
from fromnoise.training.directory import HARMLESS, TOLD, differences, leaves
from fromnoise.training.run import Run, VAERun

WIDTH = 3.0  # standard deviations from the mean to an edge of the band
PATIENCE = 3  # lines in a row on one side of the band that are no chance
DIRECTORIES = ("data.path", "model.space.path")
HARDWARE = ("training.device", "training.precision", "training.compile")
LOGGING = tuple(f"training.{name}" for name in HARMLESS)
UNRELATED = {*TOLD, "training.seed", *DIRECTORIES, *HARDWARE, *LOGGING}
"""Settings that change no loss beyond what a seed does; nor does any of `model.sampling`."""
OWN = (
    ", whose losses depend on your own pictures; fromnoise doctor looks for faults, and fromnoise diff lays a run "
    "beside an earlier one of yours"
)


class Validated(Config):
    """Validation losses along a training."""

    steps: tuple[int, ...]
    """After how many optimizer steps."""
    mean: tuple[float, ...]
    """Geometric mean over seeds."""
    spread: tuple[float, ...]
    """Standard deviation of the logarithm between seeds."""


class Trained(Config):
    """Training losses along a training."""

    steps: tuple[float, ...]
    """The middle of the steps that a mean is taken over."""
    mean: tuple[float, ...]
    """Geometric mean over seeds of the trend within each."""
    noise: tuple[float, ...]
    """Standard deviation, within a run, of the logarithm of the mean of `window` losses around the trend."""
    spread: tuple[float, ...]
    """Standard deviation of the logarithm of the trend between seeds."""
    window: PositiveInt
    """Losses that a line of the runs is the mean of."""


class Averaged(Config):
    """Logarithms of the validation loss of averaged weights over that of the weights as they are, after the first."""

    steps: tuple[int, ...]
    """After how many optimizer steps."""
    mean: tuple[float, ...]
    """Over seeds."""
    noise: float
    """Standard deviation within a run, from one validation to the next."""
    spread: tuple[float, ...]
    """Standard deviation between seeds, of all validations of a run alike."""


class Curve(Config):
    """How the losses of a recipe go, and where that is known from."""

    recipe: str
    """Name of the recipe."""
    sha256: str
    """Of the settings that matter to the losses (`fingerprint`)."""
    settings: dict[str, Any]
    """All settings of the run, as in run.yaml."""
    seeds: tuple[int, ...]
    """Of the runs that it is made from."""
    command: str
    """That trains such a run."""
    machine: dict[str, Any]
    """Where they were trained."""
    made: tuple[str, ...]
    """How the curve and its band were made: a sentence each."""
    training: Trained
    validation_raw: Validated
    """By the weights as they are."""
    validation_ema: Validated
    """By their average."""
    averaged: Averaged
    """What the average gains."""

    @property
    def run(self) -> Run | VAERun:
        """The settings; what they say nothing of, since it was not known then, is as it is by default."""
        return (VAERun if self.settings.get("type") == "vae" else Run).model_validate(self.settings)


class Band(NamedTuple):
    """What a loss is expected to be."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {(self.high - self.low) / 2:.4f}"


class Reference:
    """Tells how the losses of a run go beside the curve of its recipe, and warns once where they leave its band."""

    def __init__(self, curve: Curve, directory: Path, say: Callable[[str], None]):
        self.curve, self.directory, self.say = curve, directory, say
        self.told = ""  # of the training loss last seen
        self.gained: dict[int, float] = {}  # by the average: logarithms of ratios, by their place in the curve
        self.outside: list[int] = []  # sides of the last lines in a row that lay outside: 1 above, -1 below
        self.warned = False

    def loss(self, step: int, count: int, loss: float) -> None:
        """Take in the mean loss of the last `count` steps, after `step` of them."""
        band = expected(self.curve.training, step, count)
        if band is None:
            self.told = ""
            return
        self.told = f"loss at step {step:,} is {loss:.4f}, the reference was {band}"
        side = (loss > band.high) - (loss < band.low)
        self.outside = [*(other for other in self.outside if other == side), side] if side else []
        if len(self.outside) == PATIENCE:
            self._warn(f"{self.told[0].upper()}{self.told[1:]}; {_where(side)} the band {PATIENCE} times in a row")

    def validated(self, step: int, losses: dict[str, Any]) -> None:
        """Take in the validation losses after `step` steps, and tell of all losses there."""
        parts = [self.told] if self.told else []
        for what, curve in (("raw", self.curve.validation_raw), ("ema", self.curve.validation_ema)):
            band, loss = measured(curve, step), losses[f"validation_{what}"]
            if band is None:
                continue
            told = f"validation loss ({what}) {loss:.4f}, the reference was {band}"
            parts.append(told)
            if side := (loss > band.high) - (loss < band.low):
                self._warn(f"At step {step:,}: {told}; {_where(side)} the band")
        if step in self.curve.averaged.steps:
            self._average(step, losses["validation_raw"], losses["validation_ema"])
        if step and parts:
            self.say("; ".join(parts))

    def _average(self, step: int, raw: float, averaged: float) -> None:
        """Take in the validation losses of the weights as they are and of their average."""
        curve = self.curve.averaged
        k = curve.steps.index(step)
        self.gained[k] = math.log(averaged / raw)
        band, ratio = gain(curve, list(self.gained)), math.exp(fmean(self.gained.values()))
        told = (
            f"averaged weights have {ratio:.4f} of the validation loss of those as they are, the reference had {band}"
        )
        if averaged == raw and curve.mean[k]:
            self._warn(f"At step {step:,}: {told}; here it is the same to the last bit: nothing is averaged")
        elif side := (ratio > band.high) - (ratio < band.low):
            self._warn(f"At step {step:,}: {told}; {_where(side)} the band")

    def _warn(self, what: str) -> None:
        if not self.warned:
            self.say(
                f"WARNING: this run goes unlike the reference of the recipe {self.curve.recipe}. {what}. "
                f"What to look at: fromnoise doctor {self.directory}"
            )
        self.warned = True


def find(run: Run | VAERun, directory: Path, say: Callable[[str], None]) -> Reference | None:
    """What to compare the losses of `run` with, told in one line; None, and why, where there is nothing."""
    curve, why = comparable(run)
    if curve is None:
        say(f"no reference to compare losses with: {why}")
        return None
    seeds = ", ".join(map(str, curve.seeds))
    last = round(curve.training.steps[-1])
    say(f"losses are compared with those of the recipe {run.recipe} (seed {seeds}) up to step {last:,}")
    return Reference(curve, directory, say)


def comparable(run: Run | VAERun) -> tuple[Curve | None, str]:
    """The curve that the losses of `run` may be compared with; or None, and why there is none."""
    curve = shipped(run.recipe)
    if curve is None:
        return None, f"none comes with the recipe {run.recipe}" + (OWN if isinstance(run.data, OWN_DATA) else "")
    if found := next(deciding(curve.run, run), None):
        key, there, here = found
        return None, f"{key} is {here!r} here, {there!r} in that of the recipe {run.recipe}"
    return curve, ""


def shipped(recipe: str) -> Curve | None:
    """The curve that comes with fromnoise; None where there is none."""
    file = files("fromnoise") / "assets" / "curves" / f"{recipe}.json"
    return Curve.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def deciding(there: Run | VAERun, here: Run | VAERun) -> Iterator[tuple[str, Any, Any]]:
    """The keys that decide losses and whose values differ, and both values."""
    return (found for found in differences(there, here) if _decides(found[0]))


def fingerprint(run: Run | VAERun) -> str:
    """sha256 (hex) over the settings of `run` that decide its losses: all but seed, directories, device and how it
    computes, logging, and how it draws."""
    settings = {key: value for key, value in leaves(run.model_dump(mode="json")) if _decides(key)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def expected(curve: Trained, step: int, count: int) -> Band | None:
    """What the mean loss of the last `count` steps is expected to be after `step`; None beyond the curve's end."""
    middle = step - (count - 1) / 2
    if middle > curve.steps[-1] + curve.window / 2:
        return None
    place = math.log(middle)
    at = [math.log(known) for known in curve.steps]
    noise, spread = (_between(at, values, place) for values in (curve.noise, curve.spread))
    mean = _between(at, [math.log(value) for value in curve.mean], place)
    return _band(mean, math.hypot(noise * math.sqrt(curve.window / count), spread))


def measured(curve: Validated, step: int) -> Band | None:
    """What a validation loss is expected to be after `step` steps; None where none was measured."""
    if step not in curve.steps:
        return None
    k = curve.steps.index(step)
    return _band(math.log(curve.mean[k]), curve.spread[k])


def gain(curve: Averaged, places: Sequence[int]) -> Band:
    """What the ratio of the losses of averaged and raw weights is expected to be, as a mean over those `places`."""
    mean, spread = (fmean(values[k] for k in places) for values in (curve.mean, curve.spread))
    return _band(mean, math.hypot(curve.noise / math.sqrt(len(places)), spread))


def _band(mean: float, deviation: float) -> Band:
    return Band(math.exp(mean), math.exp(mean - WIDTH * deviation), math.exp(mean + WIDTH * deviation))


def _between(at: Sequence[float], values: Sequence[float], place: float) -> float:
    """The value at `place`, linear between those known; beyond both ends as there."""
    k = bisect_right(at, place)
    if k in (0, len(at)):
        return values[0 if k == 0 else -1]
    share = (place - at[k - 1]) / (at[k] - at[k - 1])
    return values[k - 1] + share * (values[k] - values[k - 1])


def _decides(key: str) -> bool:
    return key not in UNRELATED and not key.startswith("model.sampling.")


def _where(side: int) -> str:
    return "above" if side > 0 else "below"
