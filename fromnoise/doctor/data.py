"""What the data costs while training, and whether it is what it says. Legend: B batch, C channels, h and w cells."""

from __future__ import annotations

import hashlib
import math
import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.core.device import release_freed_memory
from fromnoise.core.needs import memory_of, physical_memory
from fromnoise.data.bucketed import BucketData
from fromnoise.data.folder import FolderData
from fromnoise.data.labelled import LabelledData
from fromnoise.data.manifest import MANIFEST
from fromnoise.data.prepared import PreparedData
from fromnoise.data.shapes import ShapesData
from fromnoise.data.shards import verify_shard
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.schedule import recorded
from fromnoise.doctor.subject import Subject
from fromnoise.doctor.watch import calls
from fromnoise.training.fast import seconds_of

LARGEST_WAIT = 0.1  # share of a run's time; a tenth is what a faster disk or a thread more would give back
LARGEST_RATIO = 1.0
"""Seconds to make a sample over seconds to train on it. One thread makes them ahead of the step: above 1 it waits."""
PICTURES = 8
REPEATS = 3
PATIENCE = 1.0  # seconds of tries before data are called slow: other work may have had the processor
LARGEST_OVERLAP = 0.02  # share of held-out pictures that are trained on: published sets have a few twins
SEEN, HELD_OUT = 4096, 256  # pictures that are compared
SIDES = re.compile(r"\b(left|right|clockwise|counterclockwise)\b", re.IGNORECASE)
UNLIKE = 0.02  # distance of a mirrored latent from the latent mirrored, as a share: 0 where it was only turned round
LARGEST_HELD = 0.25
"""Share of a mapped data set's bytes in the memory of the process, and of all memory for data that is held. What is
mapped takes 8 bytes a sample; what is held must leave room for a model."""
SLACK = 32 * 2**20  # bytes of memory that any reading takes
LARGEST_LEFTOVER = 0.05  # share of the shards' bytes in files that training never reads
ROWS = 64  # samples that are looked at
READ = 2**31  # bytes of shards that are read in full: some seconds
PADDED = 0.01  # share of the stored tokens that are 0 throughout: no encoder says that of a real token


WAITING = {
    "why": "a device that waits for data is paid for, and does nothing",
    "remedy": "prepare the data once (fromnoise prepare), or read it from a faster disk",
}


def rehearsal(subject: Subject) -> Finding:
    """What a training refuses before its first step: sides, labels, prompts of previews, data of other encoders."""
    name = "rehearsal"
    if subject.data is None:
        return left_out(name, subject.absent)
    assert subject.trainee is not None
    why = "a training with these data and previews would not begin"
    try:
        subject.trainee.rehearse(subject.model)
    except ValueError as error:
        return Finding(name, "wrong", str(error), why, "change what it names")
    return Finding(name, "fine", "the data fit the model, and all previews can be drawn", why, "")


def wait(subject: Subject) -> Finding:
    """Seconds to make a sample against seconds of a forward and backward on it."""
    name = "data wait"
    if subject.data is None:
        return left_out(name, subject.absent)
    trainee, model = subject.trainee, subject.model
    assert trainee is not None and subject.run is not None
    sample = trainee.draw(model, 0, PICTURES)  # the first makes ready what the others find
    trained = seconds_of(model, sample, 1, None, REPEATS - 1)
    made, tried, step = math.inf, 0.0, 0
    while step < REPEATS or (made >= LARGEST_RATIO * trained and tried < PATIENCE):
        step, start = step + 1, time.perf_counter()
        trainee.draw(model, step, PICTURES)
        seconds = time.perf_counter() - start
        made, tried = min(made, seconds), tried + seconds
    return judged(
        name,
        made < LARGEST_RATIO * trained,
        f"{1e3 * made / PICTURES:.2f} ms to make a sample, {1e3 * trained / PICTURES:.1f} ms to train on it here",
        **WAITING,
    )


def recorded_wait(subject: Subject) -> Finding | None:
    """The share of its time that a run has waited for data."""
    shares = recorded(subject.directory, "waiting_for_data")
    if not shares:
        return None
    mean = statistics.mean(shares)
    return judged(
        "data wait so far",
        mean < LARGEST_WAIT,
        f"{mean:.1%} of the time",
        **WAITING,
    )


def frozen_encoders(subject: Subject) -> Finding:
    """Calls of the layers of a frozen VAE or text encoder while a step's sample is made."""
    name, model = "frozen encoders", subject.model
    if subject.data is None:
        return left_out(name, subject.absent)
    modules = [*model.space.modules()]
    for encoder in dict(vars(model.conditioner)).get("encoders", []):
        modules += encoder.model.modules()
    trainee = subject.trainee
    assert trainee is not None
    inner: list[nn.Module] = [module for module in modules if module is not model.space]
    count = calls(inner, lambda: trainee.draw(model, 0, PICTURES))
    return judged(
        name,
        count == 0,
        f"{count} of their layers run in a step",
        "a frozen VAE or text encoder says the same of a picture each time, and often costs more than the step itself",
        "encode once: fromnoise prepare SOURCE --out DIR, with --vae and --text, and train on DIR",
    )


def held_out(subject: Subject) -> Finding:
    """Held-out pictures that are among the first ones trained on."""
    data = subject.data
    name = "held-out pictures"
    if data is None:
        return left_out(name, subject.absent)
    if isinstance(data, ShapesData):
        return left_out(name, "its pictures have no end: some of one object come twice by chance")
    if isinstance(data, FolderData | BucketData | PreparedData) and set(data.learned) >= set(data.held_out):
        return left_out(name, "there are too few to hold any out")
    if isinstance(data, PreparedData):  # its training and its validation draw latents of mirror images, too
        twice = len(np.intersect1d(data.learned, data.held_out))
        share, count = twice / len(data.held_out), len(data.held_out)
    else:
        shown = hashes(data.validation(HELD_OUT).images)
        seen = {one for step in range(SEEN // 64) for one in hashes(data.train(step, 64).images)}
        share, count = sum(one in seen for one in shown) / len(shown), len(shown)
    return judged(
        name,
        share <= LARGEST_OVERLAP,
        f"{share:.1%} of {count:,} are trained on",
        "a validation loss on pictures that are trained on falls whatever happens",
        "hold pictures out by a hash of their names (data.split)",
    )


def hashes(images: Tensor) -> list[bytes]:
    """A digest of each picture, the same for its mirror image."""
    both = ((one.contiguous().numpy().tobytes(), one.flip(-1).numpy().tobytes()) for one in images)
    return [hashlib.sha256(min(sides)).digest() for sides in both]


def flips(subject: Subject) -> Finding:
    """Captions that name a side while their picture may be mirrored; mirrored latents that are only turned round."""
    name, data = "flips", subject.data
    if data is None:
        return left_out(name, subject.absent)
    why = "a mirrored picture makes its left a right, and the mirrored latent is not the latent of the mirrored picture"
    remedy = "encode mirrored copies (fromnoise prepare --flip), and mirror nothing whose captions name a side"
    if isinstance(data, PreparedData):
        sided, mirrored, near = of_shards(data)
        told = f"{sided} of {mirrored} mirrored samples name a side"
        latent = mirrored and "vae" in data.layout.encoders
        if latent:
            told += f"; their latents differ from mirrored ones by {near:.0%}"
        strange = unknown_rows(data)
        told += f"; {strange} of {ROWS} samples trained on are stored in no such way" if strange else ""
        return judged(name, sided == 0 and (not latent or near > UNLIKE) and not strange, told, why, remedy)
    if isinstance(data, FolderData | BucketData):
        pairs = zip(data.said, data.mirrors, strict=True)
        mirrored = [said for said, mirror in pairs if mirror]
    elif isinstance(data, LabelledData):
        mirrored = list(map(tuple, data.said)) if data.flip else []
    else:
        return judged(name, True, "nothing is mirrored", why, remedy)
    sided = sum(any(map(SIDES.search, said)) for said in mirrored)
    return judged(name, sided == 0, f"{sided} of {len(mirrored)} that may be mirrored name a side", why, remedy)


def of_shards(data: PreparedData) -> tuple[int, int, float]:
    """Of the first samples of each shard: how many of the mirrored ones name a side, how many are mirrored, and the
    median distance of a mirrored latent from the latent mirrored, as a share."""
    sided, near = 0, list[float]()
    for shard in data.shards if data.layout.flipped else []:
        for at in range(min(ROWS, len(shard.chance))):
            plain, other = (shard.stored(at, flipped=flip)[: data.layout.latent] for flip in (False, True))
            if torch.equal(plain, other):
                continue  # there is no mirrored one, or it is its own
            sided += any(SIDES.search(shard.text(text)) for text in shard.said.row(at))
            near.append(float((other - plain.flip(-1)).norm() / plain.norm()))
    return sided, len(near), statistics.median(near or [0.0])


def unknown_rows(data: PreparedData) -> int:
    """How many of the first samples trained on are neither what is stored of any sample, nor of its mirror image."""
    bucket, turn = data.turns.at(0)
    _, places = data.shuffles[bucket].batch(turn, ROWS)
    images, strange = data.train(0, ROWS).images, 0
    for image, sample in zip(images, data.buckets[bucket][places], strict=True):
        index = int(np.searchsorted(data.firsts, sample, side="right")) - 1
        shard, at = data.shards[index], int(sample - data.firsts[index])
        ways = (False, True) if data.layout.flipped else (False,)
        strange += not any(torch.equal(image, shard.stored(at, flipped=flip)) for flip in ways)
    return strange


def memory(subject: Subject) -> Finding:
    """What reading holds in memory: of a prepared data set beside its bytes, of others beside all there is."""
    name, data = "memory", subject.data
    if data is None:
        return left_out(name, subject.absent)
    why = "data that is held in memory grows with its number, until there is no room for a model"
    if isinstance(data, PreparedData):
        total = sum(entry.bytes for entry in data.manifest.shards)
        before = held()
        again = PreparedData(data.directory, data.seed)
        for step in range(4):
            again.train(step, PICTURES)
        mine = max(0, held() - before)
        remedy = "map shards into memory (data.shards.Shard), and copy only what a batch needs"
        limit = LARGEST_HELD * total + SLACK
        return judged(name, mine < limit, f"{mib(mine)} held to read {mib(total)}", why, remedy)
    mine, limit = sum(array.nbytes for array in arrays(data)), LARGEST_HELD * physical_memory()
    remedy = "prepare it (fromnoise prepare): shards are mapped into memory, whatever their number"
    return judged(name, mine < limit, f"{mib(mine)} held of {mib(physical_memory())}", why, remedy)


def arrays(data: Any) -> Iterator[np.ndarray]:
    """The arrays of pictures that a data set holds."""
    for value in vars(data).values():
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,):
            if isinstance(one, np.ndarray):
                yield one


def held() -> int:
    """Bytes of memory of this process that no file stands for; 0 where the system does not tell."""
    release_freed_memory()  # what is kept for later would count, and be used again unseen
    return memory_of("RssAnon")


def mib(count: float) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:,.1f} MiB"


def stored(subject: Subject) -> Finding | None:
    """What a prepared data set stores beside what is read: padding of texts, and files that no manifest names."""
    data = subject.data
    if not isinstance(data, PreparedData):
        return None
    features = [data.train(step, ROWS).features for step in range(2)]
    widths = range(len(data.layout.texts))
    tokens = [part[f"tokens_{i}"][part[f"mask_{i}"]] for part in features for i in widths]  # (M, W) each
    every = sum(len(one) for one in tokens)
    padding = sum(int((one == 0).all(1).sum()) for one in tokens) / max(every, 1)
    names = {entry.name for entry in data.manifest.shards} | {MANIFEST}
    paths = data.directory.rglob("*")
    other = sum(path.stat().st_size for path in paths if path.is_file() and path.name not in names)
    total = sum(entry.bytes for entry in data.manifest.shards)
    return judged(
        "stored",
        padding <= PADDED and other <= LARGEST_LEFTOVER * total + 2**20,
        f"{mib(total)} for {data.manifest.counts.samples:,} samples, {padding:.1%} of the text's tokens are padding, "
        f"{mib(other)} in files that training never reads",
        "padding to 77 tokens takes most of the room of text features; pictures left over, ten times that of latents",
        "store real tokens only (fromnoise prepare does), and remove what is left over",
    )


def shards(subject: Subject) -> Finding | None:
    """Whether the shards of a prepared data set hold what was written: all of them, or of many a draw."""
    data = subject.data
    if not isinstance(data, PreparedData):
        return None
    every = data.manifest.shards
    drawn = [every[at] for at in np.random.default_rng(0).permutation(len(every))]
    enough = int(np.searchsorted(np.cumsum([entry.bytes for entry in drawn]), READ)) + 1
    faults = list[str]()
    for entry in drawn[:enough]:
        try:
            verify_shard(data.directory, data.layout, entry)
        except ValueError as error:
            faults.append(str(error))
    told = f"{len(faults)} of {len(drawn[:enough])} are not what was written, of {len(every)} in all"
    return judged(
        "shards",
        not faults,
        f"{told}: {'; '.join(sorted(faults)[:3])}" if faults else told,
        "a training reads what it needs and checks no hash on its way: numbers that a disk lost are trained on",
        "remove the file that is named, and say the same fromnoise prepare again: it alone is written anew",
    )
