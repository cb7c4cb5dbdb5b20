"""A plan: everything that a training will need, as one record of plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._dynamo  # which torch's optimizers import: 100 MiB of the program, there before it is measured

from fromnoise.core.chips import Chip, chip_named
from fromnoise.core.device import available, pick
from fromnoise.core.line import quiet
from fromnoise.core.needs import physical_memory, used_memory
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Data
from fromnoise.pipeline.asked import rows_of_picture
from fromnoise.planning.counts import (
    Counts,
    Pieces,
    Subject,
    autoencoder,
    count_look,
    count_step,
    counts_of,
    drawing,
    pieces_of,
)
from fromnoise.planning.fit import Memory, fitting
from fromnoise.planning.settled import done_in, settle
from fromnoise.planning.speed import COMPILED_MEMORY, COMPILER, GRAPH, Tried, here, of_run, on_chip
from fromnoise.space.config import LatentConfig
from fromnoise.training.estimate import disk, left, spent
from fromnoise.training.fast import dtype_of
from fromnoise.training.hollow import Counted, hollow
from fromnoise.training.loop import trainee_of
from fromnoise.training.run import Muon, Run, VAERun

FLOAT32 = 4  # bytes; what is frozen is kept in it


class Where(NamedTuple):
    """What a training would run on."""

    name: str
    chip: Chip | None
    """What is known of it, where it is not here."""
    device: torch.device
    """Where things are tried: here."""
    memory: int
    """Bytes."""

    @property
    def shared(self) -> bool:
        """Whether the program itself takes of that memory."""
        return self.chip is None and self.device.type == "cpu"


def where(name: str) -> Where:
    """The device called `name`: auto, cuda, mps or cpu are those here, all others come from the table.

    Raises:
        ValueError: one line, when it is neither; it names the nearest.
    """
    if name not in ("auto", *available()) and not name.startswith(("cuda", "mps")):
        told, chip = chip_named(name)
        return Where(told, chip, torch.device("cpu"), int(chip.memory * 2**30))
    device = pick(name)
    if device.type == "cuda":
        return Where(str(device), None, device, torch.cuda.get_device_properties(device).total_memory)
    return Where(str(device), None, device, physical_memory())


def make_plan(
    run: Run | VAERun, directory: Path | None, place: Where, price: float | None, utilisation: float
) -> dict[str, Any]:
    """What `run`, under way in `directory` or not begun, needs on `place`.

    price: of an hour there, in any currency. utilisation: share of a chip's peak that products are assumed to reach.

    Raises:
        ValueError: one line, for a run that cannot be.
    """
    assumed: list[str] = []
    done = done_in(run, directory, assumed.append)
    run, data = settle(run, directory, done.choices, assumed.append)
    trainee = trainee_of(run, data, quiet)
    pieces = pieces_of(run, data, assumed.append) if isinstance(run, Run) else None
    rows = rows_of_picture(run.model) if isinstance(run, Run) else 1
    if isinstance(run, VAERun) and run.model.loss.perceptual:
        assumed.append("LPIPS is left out: its VGG16 is 14.7M frozen parameters, and a forward of two pictures, more")
    program = used_memory()  # Python, PyTorch, data and what is frozen, as a training has them before its model
    training, batch = run.training, run.training.batch

    with _hollow(run, data, pieces) as subject:
        counts = counts_of(run, subject, rows)
        flops, known = counts.flops, None
        if place.chip:
            step = count_step(run, subject, batch, training.accumulate, dtype_of("bfloat16"), fused=True)
            known = on_chip(place.chip, flops, step, batch, utilisation)
        elif directory and done.choices and done.step:
            known = of_run(directory, done.choices)
    speed = known or here(run, data, pieces, batch, place.device, flops)

    with _hollow(run, data, pieces) as subject:

        def memory_of(accumulate: int, again: bool) -> Memory:
            recompute(subject.model.blocks(), again)
            dtype, fused = dtype_of(speed.precision), place.chip is not None
            counted = count_step(run, subject, batch, accumulate, dtype, fused)
            return _memory(counts, counted, COMPILED_MEMORY if speed.compiled else 1.0, look, *beside)

        look = count_look(run, subject, data, dtype_of(speed.precision))
        beside = (0, 0)
        if place.shared:
            overhead = COMPILER + counts.graphs * len(data.sizes) * GRAPH if speed.compiled else 0
            if speed.tried and not speed.compiled:
                overhead = _held_back(run, subject, counts, speed.tried)
            beside = (program, overhead)
        memory = memory_of(training.accumulate, training.recompute)
        verdict = fitting(memory, memory_of, training, place.memory, place.name)
    ahead, looks = left(training, done.step), trainee.looks()
    seconds = spent(ahead, speed.pace, looks)
    channels, height, width = data.image_shape
    files = disk(training, counts.resident, left(training, 0).previews, looks, channels * height * width)
    pictures = training.steps * batch
    hours = sum(seconds) / 3600
    return {
        "recipe": run.recipe,
        "run": str(directory) if directory else None,
        "device": place.name,
        "parameters": {"trained": counts.trained, "frozen": counts.frozen},
        "flops": flops._asdict(),
        "memory": memory._asdict() | {"total": memory.total, "of": place.memory} | verdict._asdict(),
        "speed": {
            "images_per_second": batch / speed.pace.step,
            "step_seconds": speed.pace.step,
            "precision": speed.precision,
            "compiled": speed.compiled,
            "how": speed.how,
        },
        "time": {"done_steps": done.step, **ahead._asdict(), "seconds": seconds._asdict(), "hours": hours},
        "cost": None if price is None else price * hours,
        "seen": {
            "pictures": pictures,
            "left": ahead.steps * batch,
            "epochs": pictures / data.counts.learned if data.counts else None,
            "data": data.counts.learned if data.counts else None,
        },
        "disk": files._asdict() | {"total": sum(files)},
        "derived": derived(run, data, counts),
        "assumed": assumed,
    }


def derived(run: Run | VAERun, data: Data, counts: Counts) -> dict[str, Any]:
    """What follows from the settings and the data, by the name of the setting or what it is."""
    training = run.training
    optimizer, space = training.optimizer, run.model.space if isinstance(run, Run) else None
    rates = {"lr": optimizer.lr} | ({"adamw_lr": optimizer.adamw_lr} if isinstance(optimizer, Muon) else {})
    told: dict[str, Any] = {
        "picture": list(data.image_shape),
        "sizes": len(data.sizes),
        "latent": list(counts.latent),
        "batch": training.batch,
        "pictures of a forward": training.batch // training.accumulate,
        "optimizer": optimizer.type,
        "peak learning rates": rates,
        "warm-up steps": training.warmup,
        "steps of decay": round(training.decay * training.steps),
        "EMA length in steps": max(training.ema * training.steps, 1.0),
    }
    if isinstance(run, Run):
        told |= {"shift of times": run.model.objective.times.shift, "shift of steps": run.model.sampling.shift}
    if isinstance(space, LatentConfig) and space.scale != (1.0,):
        told |= {"latents' shift": list(space.shift or ()), "latents' scale": list(space.scale or ())}
    return told


@contextmanager
def _hollow(run: Run | VAERun, data: Data, pieces: Pieces | None) -> Iterator[Subject]:
    """The hollow model of `run`, and a sample of it."""
    if isinstance(run, VAERun):
        with hollow():
            yield autoencoder(run, data)
        return
    assert pieces is not None, "a pipeline has a conditioner and a space"
    with hollow(pieces.conditioner, pieces.space):
        yield drawing(run, pieces)


def _memory(counts: Counts, counted: Counted, share: float, look: int, program: int, overhead: int) -> Memory:
    """The bytes of a step, or of a look at held-out pictures where that takes more. share: of the activations of an
    eager step that are held."""
    held = counts.resident
    frozen = FLOAT32 * sum(counts.frozen.values())
    activations = max(int(share * counted.activations), look - counted.gradients)
    return Memory(held.weights, counted.gradients, held.moments, held.average, activations, frozen, program, overhead)


def _held_back(run: Run | VAERun, subject: Subject, counts: Counts, tried: Tried) -> int:
    """Bytes by which the process grew beyond what is counted of the steps that were tried: the allocator keeps some of
    what is freed, and libraries some for themselves. Their average is not made, and what is frozen was there before."""
    counted = count_step(run, subject, tried.rows, tried.accumulate, dtype_of(tried.precision), fused=False)
    return max(0, tried.grown - _memory(counts, counted, 1.0, 0, 0, 0).total + counts.resident.average)
