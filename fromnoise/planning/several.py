"""What several processes need beside what each holds: the time that they take to tell each other anything, which way to
train together fits and is quickest, and what is read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from fromnoise.data.config import PreparedConfig
from fromnoise.data.prepared import PreparedData
from fromnoise.planning.absent import Absent
from fromnoise.planning.case import FLOAT32, Case
from fromnoise.planning.counts import Counts
from fromnoise.planning.fit import Memory
from fromnoise.planning.place import GB, Crew, Where
from fromnoise.planning.speed import Speed
from fromnoise.planning.together import Message, Part
from fromnoise.training.fast import SPARE_MEMORY
from fromnoise.training.run import Run

HALF = 2  # bytes of a number of what is prepared
ALIKE = 0.01  # steps that differ by less are told as equally quick


class Seconds(NamedTuple):
    """Of a step."""

    compute: float
    communication: float
    """While something is computed that need not wait for it."""
    update: float
    """Of messages that the update of the weights waits for."""

    @property
    def overlapped(self) -> float:
        """Where computing and telling go on at the same time."""
        return max(self.compute, self.communication) + self.update

    @property
    def apart(self) -> float:
        """Where they do not."""
        return sum(self)


class Needs(NamedTuple):
    """Of one process, trained together in one way."""

    part: Part
    memory: Memory
    speed: Speed
    """Of all together."""
    seconds: Seconds


def kinds_of(crew: Crew) -> list[str]:
    """The ways to train together that there are for it."""
    return ["ddp", "fsdp", *(["hsdp"] if crew.machines > 1 else [])]


def seconds_of(compute: float, messages: Sequence[Message], crew: Crew) -> Seconds:
    """Of a step that computes for so long."""
    took = [sum(one.seconds(crew) for one in messages if one.update == update) for update in (False, True)]
    return Seconds(compute, *took)


def paced(speed: Speed, seconds: Seconds, case: Case, place: Where) -> Speed:
    """`speed` of one process with what it waits for the others. Processes that share the cores of a machine compute no
    less while they talk."""
    crew = case.crew
    if crew.processes == 1:
        return speed
    step = seconds.apart if place.shared else seconds.overlapped
    share = crew.processes if isinstance(case.run, Run) and not place.shared else 1  # who look at held-out pictures
    beside = "beside it" if not place.shared else "after it"
    how = (
        f"{speed.how}; {seconds.communication:.3g} s of messages {beside} at {crew.link / GB:g} GB/s in a machine"
        + (f", {crew.network / GB:.3g} GB/s a process between them" if crew.machines > 1 else "")
        + ", assumed"
    )
    return speed._replace(pace=speed.pace._replace(step=step, row=speed.pace.row / share), how=how)


def told_together(case: Case, place: Where, counts: Counts, found: Mapping[str, Needs]) -> dict[str, Any]:
    """The record of a plan for several processes; `found` has every way to train together, that of the run first."""
    crew, run, (kind, own) = case.crew, case.run, next(iter(found.items()))
    room = (1 - SPARE_MEMORY) * case.room(place)
    batch, step = run.training.batch, own.speed.pace.step
    kinds = {
        name: {
            "memory": one.memory.total,
            "fits": one.memory.total <= room,
            "sent": sum(message.sent for message in one.part.messages),
            "communication_seconds": one.seconds.communication + one.seconds.update,
            "step_seconds": one.speed.pace.step,
            "images_per_second": batch / one.speed.pace.step,
        }
        for name, one in found.items()
    }
    sample = bytes_of_sample(case)
    frozen, built = FLOAT32 * sum(counts.frozen.values()), dict(counts.trained)
    first = frozen + FLOAT32 * sum(built.values())
    if own.part.split:
        built.pop("backbone", None)  # of which the others are sent their shares
    messages = [{**one._asdict(), "sent": one.sent, "seconds": one.seconds(crew)} for one in own.part.messages]
    return {
        "processes": crew.processes,
        "machines": crew.machines,
        "parallel": kind,
        "pictures_of_a_process": case.rows,
        "link": crew.link,
        "network": crew.network,
        "messages": messages,
        "sent": kinds[kind]["sent"],
        "seconds": own.seconds._asdict() | {"overlapped": own.seconds.overlapped, "apart": own.seconds.apart},
        "gathered": {"step": own.part.gathered, "looks": own.part.looked},
        "host": {"start": first, "others": frozen + FLOAT32 * sum(built.values()), "saving": own.part.first},
        "checkpoint": {"first": own.part.first, "others": own.part.others},
        "reads": {"sample": sample, "second": sample and sample * batch / step},
        "kinds": kinds,
        "advice": advice(kinds),
    }


def bytes_of_sample(case: Case) -> float | None:
    """What is read of a disk for a sample of a step: of prepared data what their manifest tells, of absent ones what it
    would; None where pictures are in memory, or are made."""
    if isinstance(case.data, PreparedData):
        manifest = case.data.manifest
        return sum(shard.bytes for shard in manifest.shards) / manifest.counts.samples
    if not isinstance(case.run.data, PreparedConfig):
        return None
    assert isinstance(case.data, Absent), "prepared data are there, or absent"
    said = case.pieces.features if case.pieces else {}
    case.assumed.append("a sample is read whole, and captions are as long as is read")
    numbers = prod(case.data.stored or case.data.image_shape)
    return HALF * (numbers + sum(one[0].numel() for one in said.values() if one.is_floating_point()))


def advice(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Which way to train together fits, and is quickest."""
    fit = {name: one["step_seconds"] for name, one in kinds.items() if one["fits"]}
    if not fit:
        return "nothing fits"
    quick = min(fit, key=lambda name: fit[name])
    alike = [name for name in ("ddp", "hsdp", "fsdp") if name in fit and fit[name] <= (1 + ALIKE) * fit[quick]]
    said = f"{' and '.join(alike)} {'are' if len(alike) > 1 else 'is'} the quickest that fits"
    return said if "ddp" in fit else f"a copy of the model in each process (ddp) does not fit: {said}"
