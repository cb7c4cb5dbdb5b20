"""Every recipe, trained and drawn from at toy size. What makes it that recipe stays; only sizes and lengths shrink."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.cli.progress import watch
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, LabelConfig
from fromnoise.core.config import Config
from fromnoise.data.config import FolderConfig, PreparedConfig
from fromnoise.data.manifest import read_manifest
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.evaluation.subject import Subject
from fromnoise.evaluation.wanted import Wanted
from fromnoise.evaluation.whole import measured
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.recipes import RECIPES, VAE_RECIPES, named
from fromnoise.space.config import LatentConfig
from fromnoise.training import drawing, loop, reconstruction, validation
from fromnoise.training.run import Run, Training, TrainingBase, VAERun
from tests import accelerator

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))
PICTURES = 6
SIZES = [("phase5", 64), ("phase5", 128), ("phase5-classes", 64), ("phase5-classes", 128), ("scratch-128", 128)]
TOY = {"width": 16, "depth": 1, "layers": 1, "head_width": 8, "heads": 2, "groups": 4, "vocabulary": 280}
"""Sizes of any backbone and any conditioner that has such a field."""
WAYS = {"down": "DownEncoderBlock2D", "up": "UpDecoderBlock2D"}
SHORT = {"steps": 3, "batch": 4, "warmup": 1, "device": "cpu", "precision": "float32", "compile": "off"}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="$FROMNOISE_DATA is absent")


def shrunk(config: Config) -> Config:
    """The same kind of module, as small as it goes."""
    return type(config).model_validate(dict(config) | {key: TOY[key] for key in TOY if key in dict(config)})


def toy(run: Run, pictures: Path, vae: Path, encoders: tuple[EncoderConfig, ...] = (), prepared: Path = Path()) -> Run:
    """The recipe at toy size; a folder's pictures are in `pictures`, the VAE of latents in `vae`, what was prepared
    with it and the frozen text `encoders` in `prepared`."""
    space, conditioner = run.model.space, shrunk(run.model.conditioner)
    if isinstance(conditioner, FrozenTextConfig):
        conditioner = conditioner.model_copy(update={"encoders": encoders})
    model = run.model.model_copy(
        update={
            "backbone": shrunk(run.model.backbone),
            "conditioner": conditioner,
            "space": space.model_copy(update={"path": vae}) if isinstance(space, LatentConfig) else space,
            "sampling": run.model.sampling.model_copy(update={"steps": 2}),
        }
    )
    training = Training.model_validate(dict(run.training) | SHORT | {"previews": run.training.previews[:2]})
    folder = isinstance(run.data, FolderConfig)
    data = run.data.model_copy(update={"path": pictures, "size": 32}) if folder else run.data
    if isinstance(data, PreparedConfig):
        data = data.model_copy(update={"path": prepared})
    return run.model_copy(update={"data": data, "model": model, "training": training})


def spread(prepared: Path) -> tuple[float, ...]:
    """Standard deviation of each channel of the latents there."""
    return read_manifest(prepared).statistics.std


def essence(run: Run) -> list[object]:
    """What makes a recipe what it is."""
    model, kinds = run.model, (run.data, run.model.backbone, run.model.conditioner, run.training.optimizer)
    return [model.path, model.objective, type(model.space), model.sampling.sampler, *map(type, kinds)]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real pictures with their captions."""
    source, place = DATA / "noto_emoji_128", tmp_path_factory.mktemp("emoji")
    lines = (source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:PICTURES]
    (place / "images").mkdir()
    for name in (json.loads(line)["file_name"] for line in lines):
        shutil.copy(source / name, place / name)
    (place / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def vae(save_vae: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of a quarter of the side, so that 128 pixels are no more than 1,024 tokens."""
    types = {f"{way}_block_types": (kind,) * 3 for way, kind in WAYS.items()}
    return save_vae(tmp_path_factory.mktemp("vae"), 0, block_out_channels=(4, 8, 8), **types)


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> tuple[EncoderConfig, ...]:
    """A tiny frozen text encoder."""
    return (EncoderConfig(path=str(folders["bert"]), length=8),)


@pytest.fixture(scope="module")
def prepared(
    emoji: Path, vae: Path, encoders: tuple[EncoderConfig, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Emoji of several sizes, prepared with the VAE and the text encoder."""
    places = {size: tmp_path_factory.mktemp("prepared") / str(size) for size in (32, 64, 128)}
    for size, place in places.items():
        prepare(str(emoji), place, Preparation(size=size, vae=vae, text=encoders), "cpu")
    return places


@pytest.mark.parametrize(("name", "size"), [*((name, 32) for name in RECIPES), *SIZES])
def test_a_recipe_trains_and_draws(
    name: str,
    size: int,
    emoji: Path,
    vae: Path,
    encoders: tuple[EncoderConfig, ...],
    prepared: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "CAPTIONS", 200)  # enough for so small a vocabulary
    monkeypatch.setattr(validation, "PER_BIN", 2)
    monkeypatch.setattr(validation, "COUNT", 2 * validation.BINS)
    run = toy(named(name), emoji, vae, encoders, prepared[size])
    assert essence(run) == essence(named(name))
    pipeline = loop.train(run, tmp_path / "run")
    assert (tmp_path / "run" / "previews" / "step-00000003.png").is_file()
    told = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert told[-1]["step"] == 3
    if isinstance(run.data, PreparedConfig):
        assert pipeline.config.size == size
        assert pipeline.space.state["scale"] == pytest.approx([1 / std for std in spread(prepared[size])], rel=1e-4)
    size = pipeline.config.size
    prompt = "3" if isinstance(run.model.conditioner, LabelConfig) else "a red heart"
    *_, last = pipeline.stream(prompt)
    assert last.x.shape == (1, *pipeline.latent_shape(size, size))
    assert bool(last.x.isfinite().all())
    assert pipeline.pictures(last.x)[0].size == (size, size)


def toy_vae(run: VAERun, pictures: Path, **training: Any) -> VAERun:
    """The recipe of an autoencoder at toy size; a folder's pictures are in `pictures`."""
    data = run.data.model_copy(update={"path": pictures}) if isinstance(run.data, FolderConfig) else run.data
    vae = run.model.vae.model_copy(update={"width": 8, "groups": 4})
    short = TrainingBase.model_validate(dict(run.training) | SHORT | training)
    model = run.model.model_copy(update={"vae": vae})
    return run.model_copy(update={"data": data, "model": model, "training": short})


@pytest.mark.parametrize("name", VAE_RECIPES)
def test_a_vae_recipe_trains(name: str, emoji: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "VALIDATED", 8)
    monkeypatch.setattr(reconstruction, "MEASURED", 64)
    run = toy_vae(VAE_RECIPES[name](), emoji)
    trained = loop.train_vae(run, tmp_path / "run")
    side = run.data.build(0).image_shape[1]
    factor, channels = {"vae": (8, 4), "vae-small": (4, 8)}[name]
    shape = (1, channels, side // factor, side // factor)
    assert trained.encode(torch.zeros(1, 3, side, side)).mean.shape == shape
    assert (tmp_path / "run" / "vae" / "config.json").is_file()


def work_elsewhere(runs: list[Run], vae_run: VAERun, place: Path) -> None:
    """Train, draw and measure on a device with a memory of its own; in a process of its own."""
    accelerator.install()
    drawing.CAPTIONS, validation.PER_BIN, validation.COUNT = 200, 1, validation.BINS
    reconstruction.VALIDATED, reconstruction.MEASURED = 2, 2
    models = {run.recipe: loop.train(run, place / run.recipe) for run in runs}
    assert {model.device.type for model in models.values()} == {accelerator.NAME}
    for sampler in SAMPLERS:
        steps = models["shapes"].stream("a red ring", 3, 3.0, sampler=sampler, interval=(0.0, 0.9))
        next(steps)  # checks, and makes what is kept for all steps
        waited = len(accelerator.waits)
        *_, last = steps
        assert len(accelerator.waits) == waited, f"{sampler} waits for the device at each step"
        assert last.x.isfinite().all() and models["shapes"].pictures(last.x)
    wanted = Wanted(samples=6, measure=("judge",), device=accelerator.NAME)
    assert "adherence" in measured(Subject(place / "shapes", wanted, watch))
    assert next(loop.train_vae(vae_run, place / "vae").parameters()).device.type == accelerator.NAME
    assert "MainThread" in accelerator.waits  # what is saved, for one
    assert not [name for name in accelerator.waits if name.startswith("prefetch")], "samples wait for the device"


def test_recipes_train_and_draw_on_a_device_with_a_memory_of_its_own(
    emoji: Path, vae: Path, encoders: tuple[EncoderConfig, ...], prepared: dict[int, Path], tmp_path: Path
) -> None:
    """As on a GPU, where a tensor of the CPU among others is an error."""
    device = {"device": accelerator.NAME}
    runs = [toy(named(name), emoji, vae, encoders, prepared[32]) for name in ("shapes", "dit", "qwen-258m")]
    runs = [run.model_copy(update={"training": run.training.model_copy(update=device)}) for run in runs]
    work = runs, toy_vae(VAE_RECIPES["vae"](), emoji, batch=2, **device), tmp_path
    process = multiprocessing.get_context("spawn").Process(target=work_elsewhere, args=work)
    process.start()
    process.join()
    assert process.exitcode == 0
