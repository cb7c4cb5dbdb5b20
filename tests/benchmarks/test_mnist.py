"""MNIST's protocol from a trained run to its record, its picture and its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.mnist import main
from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.config import write_yaml
from fromnoise.data.config import MNISTConfig
from fromnoise.evaluation import cost
from fromnoise.evaluation.judges import protocol
from fromnoise.models.config import CNNConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run, Training

MODEL = ModelConfig(
    backbone=CNNConfig(width=16),
    conditioner=LabelConfig(classes=10, width=8),
    sampling=Sampling(steps=2, guidance=1.0),
    channels=1,
    size=28,
)
METRICS = [
    {"step": 0, "validation_ema": 2.0, "validation_raw": 2.0},
    {"step": 20, "loss": 1.0, "seconds": 7.4},
    {"step": 30, "loss": 0.5, "seconds": 9.6},
    {"step": 30, "validation_ema": 0.25, "validation_raw": 0.5},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run, as a training of 30 steps leaves it."""
    place = tmp_path / "runs" / "tiny"
    checkpoint = place / "checkpoints" / "step-00000030"
    checkpoint.mkdir(parents=True)
    for name in ("model", "ema"):
        Pipeline.build(MODEL, [], seed=0).save(checkpoint / f"{name}.safetensors", {})
    write_yaml(Run(recipe="tiny", data=MNISTConfig(), model=MODEL, training=Training(batch=8)), place / "run.yaml")
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    return place


def test_a_run_gets_a_record_a_picture_and_a_row(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few(classifier, data):  # features of 65,000 digits take half a minute
        images, labels = data.pictures("validation")
        seen = classifier.classify(protocol.scaled(images[:400])).features
        return protocol.Reference(seen[:200], seen[200:], labels[:200])

    monkeypatch.setattr(protocol, "reference", few)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    places = ["--results", str(tmp_path), "--pictures", str(tmp_path), "--page", str(page)]
    main([str(run), "--count", "20", "--guidance", "2", *places])

    record = json.loads((tmp_path / "mnist_tiny.json").read_text())
    assert record["samples"] == 20
    assert record["sampling"]["guidance"] == 2 and record["sampling"]["steps"] == 2
    assert record["training"]["steps"] == 30 and record["training"]["images"] == 240
    assert record["training"]["seconds"] == 10
    assert record["training"]["validation"] == [
        {"images": 0, "ema": 2.0, "raw": 2.0},
        {"images": 240, "ema": 0.25, "raw": 0.5},
    ]
    with Image.open(tmp_path / "mnist_tiny.png") as picture:
        assert picture.width > 1000
    before, head, _, row, after = [line for line in page.read_text().splitlines() if "results" not in line]
    assert (before, after) == ("before", "after")
    assert head.startswith("| recipe | parameters |")
    assert record["flops"] == cost.flops(Pipeline.build(MODEL, [], seed=0)) > 0
    assert row.startswith(
        f"| tiny | {record['parameters'] / 1e6:.2f}M | {record['flops'] / 1e6:.0f} | 240 | 10 | 0.2500 |"
    )
    assert "tiny" in capsys.readouterr().out
