"""Trains the judge of MNIST digits that comes with fromnoise, and records what it can: weights, and one JSON record.

python -m benchmarks.mnist_classifier
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import describe_machine, write_record
from fromnoise.core.files import content_hash
from fromnoise.data.config import MNISTConfig
from fromnoise.data.labelled import scaled
from fromnoise.evaluation.classifier import ASSET, DigitClassifier, accuracy, digest, save, train
from fromnoise.evaluation.frechet import floor

RESULT = Path(__file__).parent / "results" / "mnist_classifier.json"
COUNTS = (1000, 5000, 10_000)  # of pictures, at which the floor is measured


def floors(model: DigitClassifier, learned: Tensor, held_out: Tensor, test: Tensor) -> dict[str, dict[str, float]]:
    """Frechet distance of real digits from the test digits: of digits trained on, and of some that were not."""

    def features(images: Tensor) -> Tensor:
        return model.classify(scaled(images)).features

    reference = features(test)
    return {
        name: {str(count): floor(real, reference, count) for count in COUNTS if count <= len(real)}
        for name, real in (("train", features(learned)), ("validation", features(held_out)))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--weights", type=Path, default=ASSET)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    command = f"python -m benchmarks.mnist_classifier --seed {given.seed} --epochs {given.epochs}"
    machine = describe_machine()
    data = MNISTConfig().build(given.seed)
    splits = {split: data.pictures(split) for split in ("train", "validation", "test")}
    trained_on = digest(*splits["train"])
    start = time.perf_counter()

    def report(epoch: int, loss: float) -> None:
        print(f"epoch {epoch} of {given.epochs}: loss {loss:.4f}, {time.perf_counter() - start:.0f} s", flush=True)

    model = train(*splits["train"], given.seed, given.epochs, report)
    seconds = round(time.perf_counter() - start, 1)
    right = {split: accuracy(model, *splits[split]) for split in ("validation", "test")}
    known = {
        "command": command,
        "seed": str(given.seed),
        "accuracy": f"{right['test']:.4f}",
        "torch": torch.__version__,
    }
    save(model, given.weights, {**known, "data": trained_on})
    write_record(
        given.result,
        {
            "command": command,
            "machine": machine,
            "seconds": seconds,
            "parameters": sum(p.numel() for p in model.parameters()),
            "sha256": content_hash(given.weights),
            "data": trained_on,
            "accuracy": right,
            "frechet_floor": floors(model, *(images for images, _ in splits.values())),
        },
    )
    print(given.result.read_text())


if __name__ == "__main__":
    main()
