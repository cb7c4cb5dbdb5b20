"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009).

Legend: N pictures. A record is 3,073 bytes: the class, then the red, the green and the blue plane, row by row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.data.cifar10_files import MD5, find_parquet, read_batches, read_parquet
from fromnoise.data.config import CIFAR10Config
from fromnoise.data.labelled import Labelled, LabelledData
from fromnoise.data.published import cache, fetch, folder
from fromnoise.data.report import to_stderr

ADDRESSES = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)  # no pickles in it
COUNTS = {"train": 50_000, "test": 10_000}
TRAIN_SHA256 = "cf87a488c1980a3f390ac47069a9149489d94e5ee94407e05976e3fc3f30e51c"
"""Over the sorted BLAKE2b digests of the 50,000 training records: the same for every kind of file and every order."""

VALIDATION = 5000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEMPLATES = ("a photo of {a}", "a picture of {a}", "a small photo of {a}", "{a}", "{word}")


def with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


SAID = [[template.format(a=with_article(word), word=word) for template in TEMPLATES] for word in CLASSES]
"""The captions of each class."""


def cifar10(config: CIFAR10Config, seed: int, report: Callable[[str], None] = to_stderr) -> LabelledData:
    """The data set, from any of the files it is published as; an empty cache is filled by a download of 162 MiB.

    Records are put in the order of their digests: the same files or others, the same seed gives the same training, and
    the same 5,000 pictures, the first, are held out.

    Raises:
        ValueError: one line, when there are no such files, or they cannot be had or are not what was published.
    """
    place = folder(config.path, "cifar10")
    archive = place / "cifar-10-binary.tar.gz"
    if place == cache("cifar10") and not archive.is_file():
        fetch(ADDRESSES, archive, MD5[archive.name], report)
    images, labels = read_pictures(place, "train", report)
    report(f"CIFAR-10 from {place}: {len(labels) - VALIDATION:,} pictures to train on, {VALIDATION:,} to validate")
    return LabelledData(
        train=Labelled(images[VALIDATION:], labels[VALIDATION:]),
        validation=Labelled(images[:VALIDATION], labels[:VALIDATION]),
        test=lambda: read_pictures(place, "test", report),
        said=SAID,
        seed=seed,
        flip=config.flip,
    )


def read_pictures(place: Path, split: str, report: Callable[[str], None]) -> Labelled:
    """The pictures of "train" or "test" in the order of their digests; errors as in `cifar10`."""
    records = read_batches(place, split)
    if records is None:
        shards = find_parquet(place, split)
        if not shards:
            wanted = f"cifar-10-batches-bin, cifar-10-batches-py, a .tar.gz of either, or {split}-*.parquet"
            raise ValueError(f"data folder {place} holds no {split} pictures of CIFAR-10: looked for {wanted}")
        records = from_parquet(shards, place, split, report)
    else:
        records = in_order(records, place, split)
    return Labelled(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0])


def in_order(records: np.ndarray, place: Path, split: str) -> np.ndarray:
    """The records (N, 3073) sorted by their digests.

    Raises:
        ValueError: one line, when they are not what was published: all of the training records are known by their
            digests, the test records by their number.
    """
    digests = [hashlib.blake2b(record, digest_size=16).digest() for record in records]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    if len(records) != COUNTS[split]:
        raise ValueError(f"{place} holds {len(records):,} {split} pictures; CIFAR-10 has {COUNTS[split]:,}")
    counts = np.bincount(records[:, 0], minlength=len(CLASSES)).tolist()
    if counts != [COUNTS[split] // len(CLASSES)] * len(CLASSES):
        raise ValueError(f"{place} holds {counts} {split} pictures of each class; CIFAR-10 has as many of each")
    found = hashlib.sha256(b"".join(digests[i] for i in order)).hexdigest()
    if split == "train" and found != TRAIN_SHA256:
        what = f"sha256 {found} over the digests of the pictures, CIFAR-10 has {TRAIN_SHA256}"
        raise ValueError(f"the train pictures in {place} are not CIFAR-10's: {what}; get the published files again")
    return records[order]


def from_parquet(shards: list[Path], place: Path, split: str, report: Callable[[str], None]) -> np.ndarray:
    """The sorted records in parquet files. To decode them takes 5 seconds or more, to read them .2, so they are kept in
    the cache, under a name that holds the sha256 of the files they came from."""
    sources = hashlib.sha256()
    for shard in shards:
        sources.update(hashlib.sha256(shard.read_bytes()).digest())
    kept = cache("cifar10") / f"{split}-{sources.hexdigest()[:16]}.safetensors"
    if kept.is_file():
        try:
            return load_tensors(kept)[0]["records"].numpy()
        except ValueError as error:
            report(f"decoding {place} again: {error}")
    records = in_order(read_parquet(shards, report), place, split)
    import torch

    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(kept, {"records": torch.from_numpy(records)}, {"sources": sources.hexdigest()})
    except (OSError, ValueError) as error:  # a machine whose disk is full can train all the same
        report(f"the decoded pictures are not kept: {error}")
    return records
