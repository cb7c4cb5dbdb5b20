"""A source to a prepared data set: plan, estimate, shards, manifest; what is there already is not done again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from fromnoise.core.files import write_text
from fromnoise.core.line import Line
from fromnoise.core.lock import alone
from fromnoise.core.needs import refuse_full, size
from fromnoise.data.manifest import Manifest, numbered
from fromnoise.data.shards import faults_of, finish
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.encode import Encoder, Models
from fromnoise.preparation.estimate import estimate
from fromnoise.preparation.local import run
from fromnoise.preparation.plan import PLAN, Plan, check, sweep
from fromnoise.preparation.sources.open import open_source
from fromnoise.preparation.stages import Stages

QUARANTINE = "quarantine.jsonl"


class Prepared(NamedTuple):
    """What came of it."""

    manifest: Manifest
    rates: dict[str, float]
    """Pictures per second of one thread, stage by stage, of what was done this time."""


def prepare(where: str, out: Path, settings: Preparation, device: str = "auto", ray: int = 0) -> Prepared:
    """Prepare the source `where` in the directory `out`, or go on there; by `ray` workers of Ray, or by this process.

    A shard is a function of its portion and the plan alone, and takes its name when it is whole and on disk; the
    manifest comes last. So a process killed at any moment loses at most two shards in progress, and the same call
    again ends in the same bytes. In memory are at most two portions as they are stored, and one being written; of
    pictures and pixels a few for each thread.

    Raises:
        ValueError: one line: no such source, or it changed; a model that cannot be read; a directory that was prepared
            with something else (the first difference is named); a disk that is too small or full; not one picture that
            can be read. Pictures that cannot be read are quarantined: told in quarantine.jsonl, with the reason.
    """
    line, stages = Line(), Stages()
    source = open_source(where, settings)
    line.say(source.about)
    if source.class_names:
        line.say(f"classes: {numbered(source.class_names)}")
    models = Models(settings, source.classes, device)
    plan = Plan.of(source, settings, models.layout)
    encoder = Encoder(models, settings, cores(), stages)
    with alone(out, "writes", PLAN):
        check(out, plan)
        sweep(out)
        todo = [i for i, name in enumerate(plan.shards) if not (out / name).exists()]
        if todo:
            share = len(todo) / len(plan.shards)
            entries = round(share * (source.entries or len(plan.shards) * settings.shard))
            with encoder.at_work():
                need = estimate(encoder, source, [plan.portions[i] for i in todo], entries, settings.shard)
            line.say(
                f"{entries:,} pictures need about {size(need.disk)} on disk, {size(need.memory)} of memory and "
                f"{duration(need.seconds)} ({need.measured} measured)"
            )
            refuse_full(out, need.disk, "a smaller size or fewer pictures")
            plan.write(out)
            encoder.stages = stages = Stages()  # what was measured for the estimate does not count
            live = Live(line, stages, entries)
            if ray:
                from fromnoise.preparation.cluster import run_on_ray

                run_on_ray(where, settings, device, out, todo, ray, stages, live.tick)
            else:
                run(encoder, source, plan, out, todo, live.tick)
            sweep(out)
        manifest = _finish(where, out, plan, source.class_names)
    return Prepared(manifest, stages.rates())


def _finish(where: str, out: Path, plan: Plan, class_names: tuple[str, ...]) -> Manifest:
    """Tell of what could not be read, and write the manifest."""
    faults = [fault for name in plan.shards for fault in faults_of(out / name)]
    told = (json.dumps({"key": one.key, "reason": one.reason}, ensure_ascii=False) + "\n" for one in faults)
    if faults:
        write_text(out / QUARANTINE, "".join(told))
    manifest = finish(out, plan.layout, plan.shards, plan.source, class_names)
    if not manifest.counts.samples:
        first = f": {faults[0].key}: {faults[0].reason}" if faults else ""
        raise ValueError(f"none of the {len(faults):,} pictures of {where} can be read{first}")
    return manifest


class Live:
    """How far the work has come, now and then."""

    def __init__(self, line: Line, stages: Stages, entries: int):
        self.line, self.stages, self.entries = line, stages, entries
        self.began = time.monotonic()

    def tick(self) -> None:
        """Show it, if it is time to."""
        if self.line.due:
            done, took = self.stages.pictures["read"], time.monotonic() - self.began
            speed = max(done, 1) / max(took, 1e-9)
            each = "  ".join(f"{stage} {rate:,.0f}" for stage, rate in self.stages.rates().items())
            left = duration(max(self.entries - done, 0) / speed)
            self.line.show(f"{done:,}/{self.entries:,}  {speed:,.0f} images/s ({each})  left {left}")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
