"""What is said of the pictures: captions that are cut, empty, said of many, said twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch

from fromnoise.data.prepared import PreparedData
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.subject import Subject

COUNT = 2000
LONGEST = 16  # captions whose last letter is looked for in what the encoder reads
LARGEST_CUT = 0.01  # share of captions: what is said last of one in a hundred is lost
LARGEST_EMPTY = 0.01
"""Share of captions. Nothing said is trained on purpose (model.objective.dropout), and more of it by accident takes the
place of what could be said."""
LARGEST_REPEATED = 0.2
"""Share of the pictures of which the same is said. Ten classes in one wording are a tenth each; a placeholder that
stands for all ("image") is more."""
LARGEST_DOUBLED = 0.01  # share of captions that say everything twice


def said(subject: Subject) -> list[str]:
    """Captions as training draws them."""
    assert subject.data is not None
    return subject.data.captions(COUNT)


def lost_ends(subject: Subject, captions: Sequence[str]) -> int:
    """How many of the longest captions are read as they are without their last letter."""
    encode = subject.model.conditioner.encode
    longest = sorted({caption.rstrip() for caption in captions}, key=len)[-LONGEST:]
    lost = 0
    for caption in longest:
        labels = torch.zeros(1, dtype=torch.int64)
        whole, less = encode([caption], labels), encode([caption[:-1]], labels)
        lost += all(whole[key].shape == less[key].shape and bool((whole[key] == less[key]).all()) for key in whole)
    return lost


def cut(subject: Subject) -> Finding:
    """The share of captions that the encoder cuts, by its own count; and whether that count is true."""
    name = "captions cut"
    if subject.data is None:
        return left_out(name, subject.absent)
    conditioner, captions = subject.model.conditioner, said(subject)
    read = bool(set(conditioner.encode(["a"], torch.zeros(1, dtype=torch.int64))) - {"labels"})
    if not read:
        return left_out(name, "the model reads labels, not captions")
    share, lost = conditioner.cut(captions), lost_ends(subject, captions)
    silent = (
        f"; the end of {lost} of the {LONGEST} longest is not read, and nobody says so" if lost and not share else ""
    )
    return _cut(share, len(captions), silent)


def cut_when_prepared(subject: Subject) -> Finding | None:
    """The share of captions that were cut as their tokens were stored; a run is asked by `cut`."""
    data = subject.data
    if subject.run is not None or not isinstance(data, PreparedData) or not data.layout.texts:
        return None
    counts = data.manifest.counts
    return _cut(counts.cut / max(counts.texts, 1), counts.texts, "")


def _cut(share: float, count: int, silent: str) -> Finding:
    return judged(
        "captions cut",
        share <= LARGEST_CUT and not silent,
        f"{share:.1%} of {count:,} are longer than is read{silent}",
        "what stands at the end of a caption that is cut is never learned",
        "raise the encoder's length, or shorten the captions",
    )


def contents(subject: Subject) -> Finding:
    """Captions that are empty, said of many pictures, or say everything twice."""
    name = "captions"
    if subject.data is None:
        return left_out(name, subject.absent)
    captions = said(subject)
    batch = subject.data.train(0, 256).captions
    empty = sum(not caption.strip() for caption in [*captions, *batch]) / len([*captions, *batch])
    commonest, times = Counter(batch).most_common(1)[0]
    doubled = sum(map(twice, captions)) / len(captions)
    repeated = times / len(batch)
    told = set(map(str.strip, batch)) == {""}
    return judged(
        name,
        empty <= LARGEST_EMPTY and repeated <= LARGEST_REPEATED and doubled <= LARGEST_DOUBLED and not told,
        f"{empty:.1%} empty, {doubled:.1%} say all twice; the commonest is said of {repeated:.1%} ({commonest[:40]!r})",
        "pictures of which nothing is said, or all the same, teach no words",
        "caption them, or leave them out; where there are only classes, say each class in its own words",
    )


def twice(caption: str) -> bool:
    """Whether a caption is the same text two times."""
    words = re.findall(r"\w+", caption.lower())
    half = len(words) // 2
    return half > 1 and len(words) == 2 * half and words[:half] == words[half:]
