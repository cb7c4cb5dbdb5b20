"""How fast a step is: measured here on a few, told by the run itself, or reckoned for a chip that is not here."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch

from fromnoise.core.chips import Chip
from fromnoise.core.device import keep_freed_memory
from fromnoise.core.line import quiet
from fromnoise.core.needs import peak_memory, used_memory
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Data
from fromnoise.pipeline.pipeline import Precision
from fromnoise.planning.counts import Flops, Pieces
from fromnoise.training.estimate import Pace, measure_pace
from fromnoise.training.fast import (
    Choices,
    convolves,
    dtype_of,
    eager_precisions,
    fast_precision,
    quickest,
    repays,
)
from fromnoise.training.hollow import Counted
from fromnoise.training.log import read_metrics
from fromnoise.training.loop import trainee_of
from fromnoise.training.run import Run, VAERun
from fromnoise.training.trainee import Model

UTILISATION = 0.35  # share of a chip's peak that products of a training reach, unless told otherwise
LAUNCH = 8e-6  # seconds that an eager operation takes at least: to be asked for, and begun
WITH_CONVOLUTIONS, WITHOUT = 1.05, 0.9  # a step of a compiled training over the best eager one, by what blocks have
COMPILED_MEMORY = 0.76  # of its activations
COMPILER, GRAPH = 140 * 2**20, 28 * 2**20  # bytes that the compiler keeps, and of each kind of block it compiles
BUDGET = 5.0  # seconds that steps are tried for
TRIED = 3  # steps that are timed, where there is time for it
FORWARD = 1 / 3  # of a step's time for a sample: what a forward takes, where it cannot be timed
SIDE = 768  # of the matrices that tell how fast this machine multiplies


class Tried(NamedTuple):
    """Steps that were taken here."""

    rows: int
    accumulate: int
    precision: Precision
    grown: int
    """Bytes by which the process grew."""


class Speed(NamedTuple):
    """The pace of a training, and where it is from."""

    pace: Pace
    precision: Precision
    compiled: bool
    how: str
    tried: Tried | None
    """What was tried to know it, where steps were."""

    @property
    def heaviest(self) -> Precision:
        """What the step that holds most runs in: `train`, too, tries one in float32 before it goes on in bfloat16."""
        return self.tried.precision if self.tried and not self.compiled else self.precision


def on_chip(chip: Chip, flops: Flops, step: Counted, batch: int, utilisation: float) -> Speed:
    """The pace on a chip that is not here: bound by products, by its memory, or by how soon operations follow."""
    bounds = {
        "its products": flops.training * batch / (utilisation * chip.flops),
        "its memory": step.traffic / chip.bandwidth,
        "the start of each operation": step.kernels * LAUNCH,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    how = (
        f"assumed, not measured: {utilisation:.0%} of {chip.flops / 1e12:.0f} TFLOP/s, all of "
        f"{chip.bandwidth / 1e9:.0f} GB/s, {LAUNCH * 1e6:.0f} us an operation, eager; bound by {bound}"
    )
    return Speed(_from_step(bounds[bound], batch), "bfloat16", False, how, None)


def of_run(directory: Path, choices: Choices) -> Speed | None:
    """The pace that a run has had of late, by its own record; None where it has none yet."""
    lines = read_metrics(directory / "metrics.jsonl")
    times = [line["step_seconds"] for line in lines if "step_seconds" in line][-20:]
    if not times:
        return None
    how = "measured by the run itself, over its last lines of metrics.jsonl"
    return Speed(_from_step(statistics.median(times), choices.batch), choices.precision, choices.compile, how, None)


def here(run: Run | VAERun, data: Data, pieces: Pieces | None, batch: int, device: torch.device, flops: Flops) -> Speed:
    """The pace of a few real steps, or, where one takes too long to be tried, of this machine's products."""
    training = run.training
    fused = fast_precision(device, training)
    precisions = eager_precisions(device, training, fused)
    each = flops.training / (UTILISATION * measured_flops(device))  # seconds of a sample, about
    part = batch // training.accumulate
    rows = batch if each * batch * (TRIED + 1) < BUDGET else min(part, _power(BUDGET / 3 / each))
    if rows < 1:
        how = f"assumed, not measured, since a step takes too long: {UTILISATION:.0%} of this machine's products"
        return Speed(_from_step(each * batch, batch), precisions[0], False, how, None)
    keep_freed_memory()
    before = used_memory()
    trainee = trainee_of(run, data, quiet)
    model: Model = pieces.pipeline(run.model) if isinstance(run, Run) and pieces else trainee.build()
    model.to(device)
    recompute(model.blocks(), training.recompute)
    repeats = TRIED if rows == batch else 1
    paces: dict[Precision, Pace] = {
        precisions[0]: measure_pace(trainee, model, batch, dtype_of(precisions[0]), rows, repeats)
    }
    accumulate = training.accumulate if rows == batch else 1
    grown = Tried(rows, accumulate, precisions[0], max(0, peak_memory() - before))
    paces |= {one: measure_pace(trainee, model, batch, dtype_of(one), rows, repeats) for one in precisions[1:]}
    seconds: dict[Precision, float] = {one: pace.step for one, pace in paces.items()}
    plain = quickest(seconds)
    tried = f"{repeats} steps of {rows}" + ("" if rows == batch else f" for {batch}")
    wanted = training.compile == "on" or (
        training.compile == "auto" and repays(model, training.steps, paces[plain].step, len(data.sizes))
    )
    if not wanted:
        return Speed(paces[plain], plain, False, f"measured here: {tried}, eager in {plain}", grown)
    share = compiled_share(model)
    how = (
        f"measured here: {tried}, eager in {fused}; a step of a compiled training is assumed to take {share:g} of the "
        f"best of them, activations {COMPILED_MEMORY:g}"
    )
    return Speed(paces[fused]._replace(step=share * paces[fused].step), fused, True, how, grown)


def compiled_share(model: Model) -> float:
    """What a step of a compiled training of `model` is assumed to take of the best eager one."""
    return WITH_CONVOLUTIONS if convolves(model) else WITHOUT


def measured_flops(device: torch.device) -> float:
    """FLOP/s of float32 products here: the best of a few."""
    x = torch.ones(SIDE, SIDE, device=device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (x @ x).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best


def _from_step(seconds: float, batch: int) -> Pace:
    return Pace(seconds, FORWARD * seconds / batch)


def _power(most: float) -> int:
    """The largest power of two that is not above `most`; 0 below 1."""
    return 1 << (int(most).bit_length() - 1) if most >= 1 else 0
