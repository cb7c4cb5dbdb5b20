"""All that is measured of one model, for JSON: each measure by itself, and why some are left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.files import content_hash, write_bytes, write_text
from fromnoise.core.types import Data
from fromnoise.evaluation.comparison.measure import Watch
from fromnoise.evaluation.distances.compared import compared
from fromnoise.evaluation.distances.neighbours import LEAST, Nearest, memorisation, nearest
from fromnoise.evaluation.features.clipscore import clipscore
from fromnoise.evaluation.features.extractor import Extractor, pixels
from fromnoise.evaluation.features.real import (
    NotMeasured,
    Real,
    as_pixels,
    features_of,
    halves,
    held_out,
    learned,
    learned_one,
    stored,
)
from fromnoise.evaluation.judges import adherence, protocol
from fromnoise.evaluation.judges.judge import JUDGED, Progress
from fromnoise.evaluation.listening import listening
from fromnoise.evaluation.optimal import by_time
from fromnoise.evaluation.subject import Subject
from fromnoise.evaluation.wanted import Wanted
from fromnoise.pipeline.pictures import as_pictures, as_png, grid
from fromnoise.pipeline.place import shipped

LOOKED = 100_000  # training pictures, at most, among which the nearest is looked for
SHOWN = 24  # pairs of the contact sheet
USUAL = Wanted()

Results = dict[str, Any]


def unwatched(what: str) -> AbstractContextManager[Progress]:
    """A `Watch` that shows nothing."""
    return nullcontext(lambda done, total: None)


def evaluate(place: str | os.PathLike[str] | None = None, wanted: Wanted = USUAL, watch: Watch = unwatched) -> Results:
    """What `fromnoise evaluate` measures of the model in `place`, plain for JSON: `adherence` for shapes, `accuracy`
    for digits and photographs, and all else that its data allow (docs/evaluate.md has each number).

    place: as `fromnoise.load` takes it; a run directory keeps the results in evaluation.json.
    wanted: what to measure, of how many pictures; by default all, of 1,000. watch: shows how far it has come;
    `fromnoise.cli.progress.watch` does so on stderr.

    Raises:
        ValueError: as `measured`, and one line when there is no model there.
    """
    subject = Subject(Path(place) if place is not None else shipped(), wanted, watch)
    results = measured(subject)
    keep(subject, results)
    return results


def keep(subject: Subject, results: Results) -> None:
    """Write evaluation.json into the run directory, where that is what was measured."""
    if subject.directory:
        write_text(subject.directory / "evaluation.json", json.dumps(results, indent=1) + "\n")


def measured(subject: Subject) -> Results:
    """What `subject.wanted` asks for. Under "drawing": how its pictures were drawn, where it has any. Under "left_out":
    of each measure that was not asked for by name, why it is not.

    Raises:
        ValueError: one line, for what is wrong with the model or the settings, and for a measure asked for by name that
            these data do not allow.
    """
    results: Results = {}
    left_out: dict[str, str] = {}
    asked = subject.wanted.measure
    checkpoint = content_hash(subject.file)
    for extractor in subject.extractors:  # what cannot be read is told before anything is drawn
        if subject.wanted.reference:
            stored(subject.wanted.reference, extractor)
    for name, measure in MEASURES.items():
        if name not in asked and "auto" not in asked:
            continue
        try:
            results |= measure(subject)
        except NotMeasured as reason:
            if name in asked:
                raise
            left_out[name] = str(reason)
    if not results:
        raise ValueError(f"nothing can be measured: {next(iter(left_out.values()))}")
    if subject.drawing:
        results.setdefault("drawing", subject.drawing)  # that of shapes says more
    return {**results, "left_out": left_out, "checkpoint": checkpoint, "seed": subject.wanted.seed}


def judged(subject: Subject) -> Results:
    """How often the pictures show what was asked for, at the top level."""
    wanted = subject.wanted
    if subject.kind == "shapes":
        with subject.watch("judging") as progress:
            return adherence.evaluate(
                subject.pipeline,
                n=wanted.samples,
                seed=wanted.seed,
                steps=wanted.steps,
                guidance=wanted.guidance,
                batch=wanted.batch,
                progress=progress,
                sheets=wanted.sheets if subject.ranks.first else None,
                ranks=subject.ranks,
            )
    if not subject.domain:
        raise NotMeasured(
            f"there is no judge of {subject.kind} data; allowed: --judge {', '.join(JUDGED)}, where it is like it"
        )
    real = subject.real  # first: without it, nothing need be drawn
    found = protocol.measure(subject.drawn, subject.network, real)
    if subject.pipeline.config.conditioner.type == "none":
        found |= protocol.UNTOLD
    return found


def featured(subject: Subject) -> Results:
    """Distances between drawn and real pictures, by each extractor."""
    if subject.kind == "shapes" and subject.wanted.features == ("auto",):
        raise NotMeasured("no network that came with fromnoise sees shapes; allowed: --features pixels, or a CLIP")
    records = []
    for extractor in subject.extractors:
        real = real_features(subject, extractor)
        numbers, few = compared(subject.features(extractor), real.floor, real.reference)
        about = {"extractor": extractor.name, "sha256": extractor.sha256, "preprocessing": extractor.preprocessing}
        records.append({**about, "width": real.reference.shape[1], **numbers, "notes": few})
    return {"features": records}


def real_features(subject: Subject, extractor: Extractor) -> Real:
    """Of real pictures: those given, those of the judge's own protocol, or those of the data."""
    wanted = subject.wanted
    if wanted.reference:
        return stored(wanted.reference, extractor)
    if extractor.name == subject.kind:  # pictures that the classifier learned from it knows too well to be a reference
        turns = in_turn(subject.real.learned_labels)  # the drawn ones are of every class alike, too
        return Real(floor=subject.real.learned[turns], reference=subject.real.kept)
    floor, reference = halves(subject.pipeline, subject.pictures, wanted.samples, wanted.real)
    kept = None
    if subject.directory and extractor.slow:
        kept = subject.directory / "features" / f"{extractor.name}-{extractor.sha256[:12]}.safetensors"
    with subject.watch(f"{extractor.name} looks at real pictures") as progress:
        return features_of(extractor, floor, reference, kept, progress)


def in_turn(labels: Tensor) -> Tensor:
    """Places (N,) of pictures with labels (N,) such that the classes go round."""
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        rank[labels == label] = torch.arange(int((labels == label).sum()))
    return (rank * (int(labels.max()) + 1) + labels).argsort()


def clipscored(subject: Subject) -> Results:
    """CLIPScore by each extractor that also reads."""
    readers = [extractor for extractor in subject.extractors if extractor.read]
    if not readers:
        raise NotMeasured("CLIPScore needs a CLIP: --features FOLDER, or its owner/name on the hub")
    batch = subject.pictures.validation(subject.wanted.samples)
    records = []
    for extractor in readers:
        with subject.watch(f"{extractor.name} looks at captioned pictures") as progress:
            images = as_pixels(subject.pipeline, batch).split(subject.wanted.batch)
            real = extractor.features(images, len(batch.captions), progress)
        said = subject.asked.said
        records.append(clipscore(extractor, subject.features(extractor), said, real, batch.captions))
    return {"clipscore": records}


def neighboured(subject: Subject) -> Results:
    """Whether drawn pictures are copies, and a sheet of those nearest to a training picture."""
    data, pipeline = subject.pictures, subject.pipeline
    counts = data.counts
    if counts is None:
        raise NotMeasured("training pictures without end: there is none that could have been learned by heart")
    if counts.held_out < LEAST:
        raise NotMeasured(
            f"pictures held out: {counts.held_out}; allowed: {LEAST} or more, or what is near is not known"
        )
    looked, extractor = min(counts.learned, subject.wanted.real if subject.encoded else LOOKED), pixels()
    kept = held_out(pipeline, data, min(counts.held_out, max(LEAST, subject.wanted.samples)))
    shown = subject.drawn.images, torch.cat(list(kept.read()))  # (N, C, H, W), (M, C, H', W')
    seen = torch.cat([extractor.see(images) for images in shown])  # (N + M, D)
    mirrored = torch.cat([extractor.see(images.flip(-1)) for images in shown]) if counts.mirrored else None
    with subject.watch("looking for copies") as progress:
        known = map(extractor.see, learned(pipeline, data, 0, looked).read())
        found = nearest(seen, mirrored, known, lambda done: progress(done, looked))
    count = len(subject.drawn.images)
    drawn, rest = (Nearest(*(one[rows] for one in found)) for rows in (slice(count), slice(count, None)))
    told = {"extractor": extractor.name, "sha256": extractor.sha256, "training_pictures": looked, "of": counts.learned}
    told |= memorisation(drawn, rest)
    if subject.directory:
        told["sheet"] = "neighbours.png"
        contact_sheet(subject, drawn, subject.directory / told["sheet"])
    return {"neighbours": told}


def contact_sheet(subject: Subject, drawn: Nearest, file: Path) -> None:
    """A PNG of the drawn pictures relatively nearest to a training picture, each beside it."""
    tiles, labels = [], []
    for row in drawn.relative.argsort()[:SHOWN].tolist():
        place, distance = int(drawn.place[row, 0]), float(drawn.distance[row, 0])
        pair = subject.drawn.images[row], learned_one(subject.pipeline, subject.pictures, place)
        for images in pair:
            tiles += as_pictures(images[None])
        labels += [f"drawn {row}: {subject.asked.said[row]}"[:60], f"nearest, {distance:.2f}"]
    write_bytes(file, as_png(grid(tiles, 8, labels)))


def listened(subject: Subject) -> Results:
    """What a wrong caption costs."""
    with subject.watch("does it listen?") as progress:
        return {"listening": listening(subject.pipeline, learnable(subject), progress)}


def floored(subject: Subject) -> Results:
    """Errors by time, beside those of the best denoiser for the training set."""
    with subject.watch("the best denoiser") as progress:
        return {"floor": by_time(subject.pipeline, learnable(subject), progress)}


def learnable(subject: Subject) -> Data:
    """The data, where the model could learn from them.

    Raises:
        NotMeasured: where it draws pictures of another shape.
    """
    channels, size, _ = subject.data.image_shape
    config = subject.pipeline.config
    if (channels, size) != (config.channels, config.size):
        raise NotMeasured(
            f"the model learned from {config.channels} channels and {config.size} pixels, and its data are of "
            f"{channels} and {size}"
        )
    return subject.data


MEASURES: dict[str, Callable[[Subject], Results]] = {
    "judge": judged,
    "features": featured,
    "clipscore": clipscored,
    "neighbours": neighboured,
    "listening": listened,
    "floor": floored,
}
