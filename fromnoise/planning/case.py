"""A run as it is planned: settled, with its data and what stands in for the rest; and what a step of it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from fromnoise.core.needs import used_memory
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Data
from fromnoise.planning.counts import (
    Counts,
    Pieces,
    Subject,
    autoencoder,
    count_look,
    count_step,
    drawing,
    fusing,
    pieces_of,
)
from fromnoise.planning.fit import Memory
from fromnoise.planning.place import Crew, Where
from fromnoise.planning.settled import Done, done_in, settle
from fromnoise.planning.speed import COMPILED_MEMORY, COMPILER, GRAPH, Speed, Tried
from fromnoise.planning.together import Part, part_of_one, pretended
from fromnoise.training.fast import dtype_of
from fromnoise.training.hollow import hollow
from fromnoise.training.parallel import refuse_uneven
from fromnoise.training.run import Run, TrainingBase, VAERun

FLOAT32 = 4  # bytes; what is frozen is kept in it


class Case(NamedTuple):
    """A run as a training would begin it, or go on with it, by a crew of processes."""

    run: Run | VAERun
    directory: Path | None
    done: Done
    data: Data
    pieces: Pieces | None
    program: int
    """Bytes of Python, PyTorch, data and what is frozen, as a training has them before its model."""
    assumed: list[str]
    crew: Crew

    @property
    def rows(self) -> int:
        """Samples of a step that are one process's."""
        return self.run.training.batch // self.crew.processes

    def room(self, place: Where) -> int:
        """Bytes that a process has at `place`."""
        return place.memory // self.crew.here if place.shared else place.memory

    @contextmanager
    def hollow(self) -> Iterator[Subject]:
        """The hollow model of the run, and a sample of it."""
        if isinstance(self.run, VAERun):
            with hollow():
                yield autoencoder(self.run, self.data)
            return
        assert self.pieces is not None, "a pipeline has a conditioner and a space"
        with hollow(self.pieces.conditioner, self.pieces.space):
            yield drawing(self.run, self.pieces)


def case_of(run: Run | VAERun, directory: Path | None, crew: Crew) -> Case:
    """`run`, under way in `directory` or not begun, with all that follows from it, and what is absent assumed.

    Raises:
        ValueError: one line, for a run that cannot be.
    """
    assumed: list[str] = []
    done = done_in(run, directory, assumed.append)
    run, data = settle(run, directory, done.choices, crew.processes, assumed.append)
    refuse_uneven(crew.processes, run.training)
    pieces = pieces_of(run, data, assumed.append) if isinstance(run, Run) else None
    if isinstance(run, VAERun) and run.model.loss.perceptual:
        assumed.append("LPIPS is left out: its VGG16 is 14.7M frozen parameters, and a forward of two pictures, more")
    return Case(run, directory, done, data, pieces, used_memory(), assumed, crew)


def part_of(case: Case, counts: Counts, training: TrainingBase, speed: Speed | None) -> Part:
    """What one process holds and tells in a step of `training`: of several, or the only one. speed: as found here; None
    elsewhere, on a chip whose attention keeps no scores."""
    dtype, fused = dtype_of(speed.heaviest if speed else "bfloat16"), speed is None
    run, crew = case.run, case.crew
    with pretended(training, crew) as parallel, case.hollow() as subject:
        with torch.no_grad():
            subject.model.loss(*subject.sample)  # what is kept from step to step is no part of one
        if crew.processes > 1:
            return part_of_one(subject, training, parallel, crew, fusing(dtype) if fused else dtype)
        recompute(subject.model.blocks(), training.recompute)
        counted = count_step(run, subject, case.rows, training.accumulate, dtype, fused)
        return Part(counts.resident, counted, 0, 0, 0, [], 0, 0, split=False)


class Beside(NamedTuple):
    """What a process holds beside what a step of its own is counted to hold."""

    share: float
    """Of the activations of an eager step that are held."""
    look: int
    """Bytes of a look at held-out pictures, besides weights."""
    frozen: int
    encoders: int
    """Bytes of text encoders among it, which stay in main memory where weights are shared out."""
    program: int
    overhead: int
    cpu: bool
    """Whether that is what trains: memory is its own, and processes talk by gloo, which copies what it sums."""


def beside_at(case: Case, place: Where, counts: Counts, speed: Speed | None) -> Beside:
    """Of a process of `case` at `place`. speed: as of `part_of`."""
    with case.hollow() as subject:
        look = count_look(case.run, subject, case.data, dtype_of(speed.precision if speed else "bfloat16"))
    frozen, program, overhead = FLOAT32 * sum(counts.frozen.values()), 0, 0
    encoders = FLOAT32 * sum(numbers for name, numbers in counts.frozen.items() if name != "VAE")
    if speed is None:
        return Beside(1.0, look, frozen, encoders, program, overhead, cpu=False)
    if place.shared:
        program = case.program
        overhead = COMPILER + counts.graphs * len(case.data.sizes) * GRAPH if speed.compiled else 0
        if speed.tried and not speed.compiled:
            overhead = _held_back(case, counts, frozen, speed.tried)
    share = COMPILED_MEMORY if speed.compiled else 1.0
    return Beside(share, look, frozen, encoders, program, overhead, cpu=place.device.type == "cpu")


def memory_of(part: Part, beside: Beside) -> Memory:
    """The bytes of a step, or of a look at held-out pictures where that takes more."""
    held, counted = part.resident, part.counted
    step = int(beside.share * counted.activations), part.gathered + beside.cpu * part.scattered
    seen = beside.look - counted.gradients, part.looked
    activations, gathered = max(step, seen, key=sum)
    frozen = beside.frozen - beside.encoders * (part.split and not beside.cpu)
    rest = frozen, beside.program, beside.overhead + beside.cpu * part.first
    return Memory(held.weights, counted.gradients, held.moments, held.average, activations, *rest, gathered)


def _held_back(case: Case, counts: Counts, frozen: int, tried: Tried) -> int:
    """Bytes by which the process grew beyond what is counted of the steps that were tried: the allocator keeps some of
    what is freed, and libraries some for themselves. Their average is not made, and what is frozen was there before."""
    with case.hollow() as subject:
        counted = count_step(case.run, subject, tried.rows, tried.accumulate, dtype_of(tried.precision), fused=False)
    seen = counted.activations + counted.gradients + counts.resident.weights + counts.resident.moments + frozen
    return max(0, tried.grown - seen)
