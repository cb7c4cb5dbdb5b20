"""Real pictures to compare with: those trained on, in the order in which training sees them, and those held out.

Legend: N pictures, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.core.types import Batch, Data
from fromnoise.evaluation.features.extractor import Extractor
from fromnoise.pipeline.pipeline import Pipeline

PART = 250  # pictures read together


class Real(NamedTuple):
    """Features of two sets of real pictures that share none."""

    floor: Tensor  # (M, D)
    reference: Tensor  # (R, D)


class Pictures(NamedTuple):
    """Pictures that are read when they are asked for, and how many."""

    count: int
    read: Callable[[], Iterator[Tensor]]  # batches (B, C, H, W) in [-1, 1]


class NotMeasured(ValueError):
    """Why something is not measured of this model on these data, in one line."""


def learned(pipeline: Pipeline, data: Data, first: int, last: int) -> Pictures:
    """Training pictures `first` to `last` (left out), each once, nearly in the order in which training sees them in its
    first pass, so that any run of them is a fair draw. Each batch is of one size."""

    def read() -> Iterator[Tensor]:
        for part in range(first // PART, -(-last // PART)):
            place = part * PART
            for batch in together(data, part):
                rows = slice(max(first - place, 0), max(last - place, 0))
                place += len(batch.images)
                if len(batch.images[rows]):
                    yield as_pixels(pipeline, batch)[rows]

    return Pictures(last - first, read)


def learned_one(pipeline: Pipeline, data: Data, place: int) -> Tensor:
    """The training picture (C, H, W) at `place` in that order."""
    return next(learned(pipeline, data, place, place + 1).read())[0]


def together(data: Data, part: int) -> list[Batch]:
    """Training pictures `part` * `PART` to (`part` + 1) * `PART` of the first pass, in a batch for each size.

    Of one size, a step sees them in the order of the pass. Of several, a step is of one size and may show a picture
    twice, but as many steps of one picture as there are show each once; of these, those of a size come together.
    """
    if len(data.sizes) == 1:
        return [data.train(part, PART)]
    assert data.counts, "buckets have an end"
    steps = range(part * PART, min((part + 1) * PART, data.counts.learned))
    sizes: dict[torch.Size, list[Batch]] = {}
    for one in (data.train(step, 1) for step in steps):
        sizes.setdefault(one.images.shape, []).append(one)
    return [
        Batch(
            torch.cat([one.images for one in alike]),
            [caption for one in alike for caption in one.captions],
            torch.cat([one.labels for one in alike]),
            encoded=alike[0].encoded,
        )
        for alike in sizes.values()
    ]


def held_out(pipeline: Pipeline, data: Data, count: int) -> Pictures:
    """The first `count` pictures to validate on."""

    def read() -> Iterator[Tensor]:
        yield from as_pixels(pipeline, data.validation(count)).split(PART)

    return Pictures(count, read)


@torch.no_grad()
def as_pixels(pipeline: Pipeline, batch: Batch) -> Tensor:
    """Pictures (B, C, H, W) of a batch; what was stored encoded is decoded by the model's own space."""
    if not batch.encoded:
        return batch.images
    z = pipeline.latents(batch, torch.Generator().manual_seed(0)).to(pipeline.device)  # (B, Z, h, w)
    return pipeline.space.decode(z).float().cpu()  # (B, C, H, W)


def halves(pipeline: Pipeline, data: Data, drawn: int, most: int) -> tuple[Pictures, Pictures]:
    """Real pictures for the floor, as many as are drawn, and others for the reference, `most` at most.

    The floor is of pictures held out, where there are enough, else of training pictures, half of them at most.

    Raises:
        NotMeasured: where there are fewer than two.
    """
    counts = data.counts
    total = drawn + most if counts is None else counts.learned
    if total < 2:
        raise NotMeasured(f"{total} real picture cannot be compared with; allowed: two or more")
    if counts is not None and counts.held_out >= drawn:
        return held_out(pipeline, data, drawn), learned(pipeline, data, 0, min(most, total))
    middle = min(drawn, total // 2)
    return learned(pipeline, data, 0, middle), learned(pipeline, data, middle, min(middle + most, total))


def features_of(
    extractor: Extractor,
    floor: Pictures,
    reference: Pictures,
    kept: Path | None,
    progress: Callable[[int, int], None],
) -> Real:
    """Features of both, those in the file `kept` where they are of these very pictures; else they are kept there."""
    content = ""
    if kept and kept.is_file():
        tensors, metadata = load_tensors(kept)
        content = hash_of(floor, reference)
        if (metadata.get("extractor"), metadata.get("pictures")) == (extractor.sha256, content):
            return Real(tensors["floor"], tensors["reference"])
    both = floor.count + reference.count
    found = Real(
        extractor.features(floor.read(), both, progress),
        extractor.features(reference.read(), both, lambda done, total: progress(floor.count + done, total)),
    )
    if kept:
        metadata = {"extractor": extractor.sha256, "name": extractor.name}
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(kept, found._asdict(), metadata | {"pictures": content or hash_of(floor, reference)})
    return found


def hash_of(*sets: Pictures) -> str:
    """sha256 (hex) of the pictures themselves."""
    digest = hashlib.sha256()
    for pictures in sets:
        for images in pictures.read():
            digest.update(str(tuple(images.shape)).encode())
            digest.update(images.contiguous().numpy().data)
    return digest.hexdigest()


def stored(file: Path, extractor: Extractor) -> Real:
    """Features of real pictures that `features_of` kept in `file`.

    Raises:
        ValueError: one line, when they are not that, or those of another extractor.
    """
    tensors, metadata = load_tensors(file)
    if not {"floor", "reference"} <= tensors.keys() or "extractor" not in metadata:
        raise ValueError(f"{file} holds no features of real pictures; allowed: what an evaluation kept in RUN/features")
    if metadata["extractor"] != extractor.sha256:
        raise ValueError(
            f"{file} holds features by {metadata['name']} (sha256 {metadata['extractor'][:12]}...), and drawn pictures "
            f"are seen by {extractor.name} ({extractor.sha256[:12]}...): the two cannot be compared"
        )
    return Real(tensors["floor"], tensors["reference"])
