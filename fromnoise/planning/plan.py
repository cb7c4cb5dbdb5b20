"""A plan: everything that a training will need, as one record of plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fromnoise.core.line import quiet
from fromnoise.core.types import Data
from fromnoise.pipeline.asked import rows_of_picture
from fromnoise.planning.case import Case, beside_at, case_of, memory_of, part_of
from fromnoise.planning.counts import Counts, counts_of
from fromnoise.planning.fit import Memory, fitting
from fromnoise.planning.place import Crew, Where
from fromnoise.planning.several import Needs, kinds_of, paced, seconds_of, told_together
from fromnoise.planning.speed import Speed, here, of_run, on_chip
from fromnoise.space.config import LatentConfig
from fromnoise.training.estimate import disk, left, spent
from fromnoise.training.loop import trainee_of
from fromnoise.training.run import Muon, Run, VAERun


def make_plan(
    run: Run | VAERun, directory: Path | None, place: Where, price: float | None, utilisation: float, crew: Crew
) -> dict[str, Any]:
    """What `run`, under way in `directory` or not begun, needs where `crew` trains it on `place`.

    price: of an hour of a process there, in any currency. utilisation: share of a chip's peak that products are assumed
    to reach.

    Raises:
        ValueError: one line, for a run that cannot be.
    """
    case = case_of(run, directory, crew)
    training = case.run.training
    rows = rows_of_picture(case.run.model) if isinstance(case.run, Run) else 1
    with case.hollow() as subject:
        counts = counts_of(case.run, subject, rows)
    speed = None if place.chip else _speed_here(case, place, counts)
    beside = beside_at(case, place, counts, speed)

    def needs(kind: str) -> Needs:
        part = part_of(case, counts, training.model_copy(update={"parallel": kind}), speed)
        alone = speed
        if place.chip:
            alone = on_chip(place.chip, counts.flops, part.counted, case.rows, utilisation)
        assert alone is not None, "what is here is timed"
        seconds = seconds_of(alone.pace.step, part.messages, crew)
        return Needs(part, memory_of(part, beside), paced(alone, seconds, case, place), seconds)

    own = needs(training.parallel)

    def memory_in(parts: int, again: bool) -> Memory:
        asked = training.model_copy(update={"accumulate": parts, "recompute": again})
        return memory_of(part_of(case, counts, asked, speed), beside)

    room = case.room(place)
    verdict = fitting(own.memory, memory_in, training, room, place.name, crew.processes)
    memory = own.memory.told() | {"total": own.memory.total, "of": room} | verdict._asdict()
    plan = _told(case, place, counts, own.speed, memory, price)
    if crew.processes == 1:
        return plan
    others = {kind: needs(kind) for kind in kinds_of(crew) if kind != training.parallel}
    return plan | {"together": told_together(case, place, counts, {training.parallel: own} | others)}


def _speed_here(case: Case, place: Where, counts: Counts) -> Speed:
    """The pace on this machine: that of the run itself, or of some steps. Processes that share it share its cores."""
    if case.directory and case.done.choices and case.done.step and (known := of_run(case.directory, case.done.choices)):
        return known
    batch = case.run.training.batch if place.shared else case.rows
    return here(case.run, case.data, case.pieces, batch, place.device, counts.flops)


def _told(
    case: Case, place: Where, counts: Counts, speed: Speed, memory: dict[str, Any], price: float | None
) -> dict[str, Any]:
    """The record."""
    run, data, training = case.run, case.data, case.run.training
    ahead, looks = left(training, case.done.step), trainee_of(run, data, quiet).looks()
    seconds = spent(ahead, speed.pace, looks)
    channels, height, width = data.image_shape
    files = disk(training, counts.resident, left(training, 0).previews, looks, channels * height * width)
    pictures = training.steps * training.batch
    hours = sum(seconds) / 3600
    return {
        "recipe": run.recipe,
        "run": str(case.directory) if case.directory else None,
        "device": place.name,
        "parameters": {"trained": counts.trained, "frozen": counts.frozen},
        "flops": counts.flops._asdict(),
        "memory": memory,
        "speed": {
            "images_per_second": training.batch / speed.pace.step,
            "step_seconds": speed.pace.step,
            "precision": speed.precision,
            "compiled": speed.compiled,
            "how": speed.how,
        },
        "time": {"done_steps": case.done.step, **ahead._asdict(), "seconds": seconds._asdict(), "hours": hours},
        "cost": None if price is None else price * hours * case.crew.processes,
        "seen": {
            "pictures": pictures,
            "left": ahead.steps * training.batch,
            "epochs": pictures / data.counts.learned if data.counts else None,
            "data": data.counts.learned if data.counts else None,
        },
        "disk": files._asdict() | {"total": sum(files)},
        "derived": derived(run, data, counts),
        "assumed": case.assumed,
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
