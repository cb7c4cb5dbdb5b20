"""examples/one_file.py does what the package does: the same tokens, weights, losses and pictures from the same seed."""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fromnoise.conditioning.config import TextConfig
from fromnoise.data.config import FolderConfig
from fromnoise.data.shapes import draw_scene, render
from fromnoise.diffusion.loss import Objective
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.loop import train
from fromnoise.training.run import AdamW, Run, Training

FILE = Path(__file__).parents[1] / "examples" / "one_file.py"
SEED = 3
# Every branch is taken: captions are cut, batches span two passes over the pictures, the warm-up ends, gradients are
# clipped, the average reaches its length, some captions are hidden, there are blocks before the last one.
CONSTANTS = dict(S=16, P=4, D=16, H=2, DEPTH=2, TEXT_DEPTH=2, VOCABULARY=300, LENGTH=12, LR=5e-3, WARMUP=3, CLIP=0.5)
CONSTANTS |= dict(EMA=0.267, DROPOUT=0.3, DRAW_STEPS=4, GUIDANCE=3.0)
MODEL = ModelConfig(
    backbone=MMDiTConfig(patch=4, width=16, depth=2, head_width=8),
    conditioner=TextConfig(vocabulary=300, length=12, width=16, depth=2, heads=2),
    objective=Objective(dropout=0.3),
    sampling=Sampling(steps=4, guidance=3.0),
    size=16,
)
USUAL: dict[str, Any] = {"precision": "float32", "compile": "off", "device": "cpu", "log_every": 1}
TRAINING = Training(
    steps=6, batch=4, optimizer=AdamW(lr=5e-3), warmup=3, clip=0.5, ema=0.267, seed=SEED, previews=("x",), **USUAL
)


def load() -> Any:
    """The file as a module of its own each time, so that its constants can be changed."""
    spec = importlib.util.spec_from_file_location("one_file", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def one() -> Any:
    module = load()
    assert set(CONSTANTS) <= set(vars(module))
    vars(module).update(CONSTANTS, DEVICE="cpu")
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes of shapes, higher than wide, listed in no order."""
    directory, rng = tmp_path_factory.mktemp("pictures"), Random(0)
    prompts, scenes = zip(*(draw_scene(rng) for _ in range(10)), strict=True)
    lines = []
    for i, pixels in enumerate((render(list(scenes), 32) * 255).round().astype(np.uint8)):  # (32, 32, 3)
        Image.fromarray(pixels[:, 2:30]).save(directory / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": prompts[i].text}) + "\n")
    Random(1).shuffle(lines)
    (directory / "metadata.jsonl").write_text("".join(lines))
    return directory


class Both(NamedTuple):
    """The same training by the file and by the package."""

    average: Any
    losses: list[float]
    pipeline: Pipeline  # its weights are the average
    theirs: list[float]
    norms: list[float]


@pytest.fixture(scope="module")
def both(one: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    images, captions = one.read_folder(folder)
    torch.manual_seed(SEED)
    model = one.MMDiT(one.TextEncoder(captions))
    average = copy.deepcopy(model)

    losses = list(one.train(model, average, images, captions, Namespace(steps=6, batch=4, seed=SEED)))

    directory = tmp_path_factory.mktemp("run") / "run"
    pipeline = train(Run(data=FolderConfig(path=folder, size=16), model=MODEL, training=TRAINING), directory)
    told = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in told if "loss" in line]
    return Both(average, losses, pipeline, [line["loss"] for line in told], [line["gradient_norm"] for line in told])


def weights(model: nn.Module) -> list[Tensor]:
    """What is drawn by chance at first: matrices and the token for nothing, the text encoder's before the network's."""
    named = [(name, p) for name, p in model.named_parameters() if p.ndim > 1 or name.endswith("nothing")]
    return [p for _, p in sorted(named, key=lambda item: not item[0].startswith(("text.", "conditioner.")))]


def test_reads_the_same_pictures_and_captions(one: Any, folder: Path):
    images, captions = one.read_folder(folder)
    data = FolderConfig(path=folder, size=16).build(0)
    assert (images.numpy() == data.pictures).all()
    assert captions == [said for (said,) in data.said]


@pytest.mark.parametrize("vocabulary", [300, 1024])  # as many tokens as asked for, or as the captions give
def test_learns_the_same_tokens(one: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, vocabulary: int):
    monkeypatch.setattr(one, "VOCABULARY", vocabulary)
    captions = one.read_folder(folder)[1]
    text, conditioner = one.TextEncoder(captions), TextConfig(vocabulary=vocabulary, length=12).build(captions)
    texts = [
        "",
        "a red circle",
        "Two  BLUE\nstars",
        "ｆｕｌｌ width, ünseen: 圆",
        "a long one, longer than the twelve tokens",
    ]
    texts += captions
    ids, features = text.encode(texts), conditioner.encode(texts, torch.zeros(len(texts)))
    assert torch.equal(ids, features["ids"])
    assert torch.equal(ids != 0, features["mask"])
    assert text.embedding.weight.shape[0] == conditioner.embedding.weight.shape[0]


def test_reads_captions_alike(both: Both):
    text, conditioner = copy.deepcopy(both.average.text), copy.deepcopy(both.pipeline.conditioner)
    for matrix in [*weights(text), *weights(conditioner)]:
        matrix.data.mul_(10)  # far from what is nearly linear
    captions, keep = ["a red circle", "two stars", "a ring"], torch.tensor([True, False, True])
    tokens, mask = text(text.encode(captions), keep)
    cond = conditioner(conditioner.encode(captions, torch.zeros(3))).where(keep, conditioner.null(3))
    assert torch.equal(mask.sum(1), cond.mask.sum(1))
    torch.testing.assert_close(tokens[mask], cond.tokens[cond.mask], rtol=1e-4, atol=1e-5)


def test_starts_from_the_same_weights(one: Any, folder: Path):
    captions = one.read_folder(folder)[1]
    torch.manual_seed(SEED)
    text = one.TextEncoder(captions)
    torch.manual_seed(SEED)
    conditioner: Any = MODEL.conditioner.build(captions)
    assert torch.equal(text.embedding.weight, conditioner.embedding.weight)
    assert torch.equal(text.position, conditioner.position)
    assert torch.equal(text.nothing, conditioner.nothing)
    for mine, theirs in zip(weights(text), weights(conditioner), strict=True):
        assert torch.equal(mine, theirs)
    torch.manual_seed(SEED)
    network = one.MMDiT(nn.Module())
    torch.manual_seed(SEED)
    backbone = MODEL.backbone.build(3, 16)
    for mine, theirs in zip(weights(network), weights(backbone), strict=True):
        assert torch.equal(mine, theirs)


def test_losses_are_equal(both: Both):
    assert both.losses == pytest.approx(both.theirs, rel=1e-6)
    assert len(both.losses) == 6 and len(set(both.losses)) == 6
    assert max(both.norms) > 0.5  # some gradients were clipped


def test_weights_stay_equal(both: Both):
    for mine, theirs in zip(weights(both.average), weights(both.pipeline), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-6)


def test_draws_the_same_pictures(one: Any, both: Both):
    prompts = ["a red circle", "two blue stars left of something longer than the model reads"]
    mine = np.stack([np.asarray(picture) for picture in one.draw(both.average, prompts, 5)]).astype(int)
    theirs = np.stack([np.asarray(picture) for picture in both.pipeline(prompts, seed=5, precision="float32")])
    assert np.abs(mine - theirs).max() <= 1
    assert theirs.std() > 5  # not all of one grey
    assert np.abs(mine[0] - mine[1]).max() > 10


def test_constants_are_the_defaults_of_the_package():
    model, training, optimizer = ModelConfig(), Training(), AdamW()
    text, backbone, objective, sampling = TextConfig(), MMDiTConfig(), Objective(), Sampling()
    assert text.width == backbone.width
    assert text.heads == backbone.width // backbone.head_width
    defaults = dict(S=model.size, P=backbone.patch, D=text.width, H=text.heads, DEPTH=backbone.depth)
    defaults |= dict(TEXT_DEPTH=text.depth, VOCABULARY=text.vocabulary, LENGTH=text.length, LR=optimizer.lr)
    defaults |= dict(WARMUP=training.warmup, CLIP=training.clip, EMA=training.ema, DROPOUT=objective.dropout)
    defaults |= dict(DRAW_STEPS=sampling.steps, GUIDANCE=sampling.guidance)
    assert {name: value for name, value in vars(load()).items() if name in CONSTANTS} == defaults


def test_stands_alone():
    imported = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "torch", "PIL", "tokenizers"}
    assert len(FILE.read_text().splitlines()) <= 240


def test_runs_as_a_script(folder: Path, tmp_path: Path):
    big, small = "D, H, DEPTH, TEXT_DEPTH = 192, 3, 6, 2", "D, H, DEPTH, TEXT_DEPTH = 16, 2, 1, 1"
    text = FILE.read_text()
    assert big in text
    toy = tmp_path / "toy.py"
    toy.write_text(text.replace(big, small))
    flags = ["--steps", "21", "--batch", "2", "--seed", "1", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-W", "error", str(toy), str(folder), *flags, "a red circle", "two blue stars"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  loss ")[0] for line in lines[:2]] == ["step 20/21", "step 21/21"]
    assert [line.split(": ")[1] for line in lines[2:]] == ["a red circle", "two blue stars"]
    for name in ("0.png", "1.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert (picture.mode, picture.size) == ("RGB", (32, 32))
