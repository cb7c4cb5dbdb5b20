"""Trains a judge of pictures that comes with fromnoise, and records what it can: weights, and one JSON record.

python -m benchmarks.mnist_classifier
python -m benchmarks.cifar10_classifier
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import describe_machine, write_record
from fromnoise.core.files import content_hash
from fromnoise.data.labelled import scaled
from fromnoise.evaluation.distances.frechet import floor, frechet_distance
from fromnoise.evaluation.judges.classifier import Classifier, accuracy, digest, save
from fromnoise.evaluation.judges.domains import DOMAINS
from fromnoise.evaluation.judges.fit import train

RESULTS = Path(__file__).parent / "results"
COUNTS = (1000, 5000, 10_000)  # of pictures, at which the floor is measured


def floors(classifier: Classifier, splits: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Frechet distance of real pictures from the reference: of those trained on, and of others that were not.

    halves: the same of half of the reference from its other half, and of as many of those trained on from that half;
    where the second is higher, the network sees in pictures whether it was trained on them.
    """
    seen = {name: classifier.classify(scaled(images)).features for name, images in splits.items()}
    kept = seen[classifier.domain.reference]  # (R, D)
    half = len(kept) // 2
    found = {
        name: {str(count): floor(real, kept, count) for count in COUNTS if count <= len(real)}
        for name, real in seen.items()
        if name != classifier.domain.reference
    }
    return found | {
        "halves": {
            "reference": frechet_distance(kept[:half], kept[half:]),
            "train": floor(seen["train"], kept[half:], half),
        }
    }


def main(kind: str, epochs: int) -> None:
    """Train the judge of the data set of that type."""
    domain, name = DOMAINS[kind], f"{kind}_classifier"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--weights", type=Path, default=domain.asset)
    parser.add_argument("--result", type=Path, default=RESULTS / f"{name}.json")
    given = parser.parse_args()
    command = f"python -m benchmarks.{name} --seed {given.seed} --epochs {given.epochs}"
    machine = describe_machine()
    data = domain.published()
    splits = {split: data.pictures(split) for split in dict.fromkeys(("train", "validation", domain.reference))}
    trained_on = digest(*splits["train"])
    start, started = time.perf_counter(), time.process_time()

    def report(epoch: int, loss: float) -> None:
        print(f"epoch {epoch} of {given.epochs}: loss {loss:.4f}, {time.perf_counter() - start:.0f} s", flush=True)

    classifier = train(domain, *splits["train"], given.seed, given.epochs, report)
    seconds, busy = time.perf_counter() - start, time.process_time() - started
    right = {split: accuracy(classifier, *splits[split]) for split in splits if split != "train"}
    known = {
        "command": command,
        "seed": str(given.seed),
        "accuracy": f"{right[domain.reference]:.4f}",
        "torch": torch.__version__,
    }
    save(classifier, given.weights, {**known, "data": trained_on})
    write_record(
        given.result,
        {
            "command": command,
            "machine": machine,
            "seconds": round(seconds, 1),
            "processor_seconds": round(busy, 1),
            "parameters": sum(p.numel() for p in classifier.parameters()),
            "sha256": content_hash(given.weights),
            "data": trained_on,
            "accuracy": right,
            "frechet_floor": floors(classifier, {split: images for split, (images, _) in splits.items()}),
        },
    )
    print(given.result.read_text())
