"""What latents are moved and scaled by: measured before the first step, recorded, and taken up again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fromnoise.conditioning.config import TextConfig
from fromnoise.core.config import read_yaml
from fromnoise.data.config import FolderConfig, PreparedConfig, ShapesConfig
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.load import load
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.space.config import LatentConfig
from fromnoise.training import latents, validation
from fromnoise.training.directory import derive
from fromnoise.training.latents import measured_space, recorded_space
from fromnoise.training.loop import train
from fromnoise.training.run import Run, Training

EMOJI = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "noto_emoji_128"


def space_of(run: Run) -> LatentConfig:
    space = run.model.space
    assert isinstance(space, LatentConfig)
    return space


def in_latents(run: Run, vae: Path) -> Run:
    backbone = MMDiTConfig(width=16, depth=1, head_width=8, patch=8)
    return run.model_copy(
        update={"model": run.model.model_copy(update={"backbone": backbone, "space": LatentConfig(path=vae)})}
    )


def test_pixels_are_left_as_they_are(tiny_run: Callable[..., Run]) -> None:
    data = ShapesConfig().build(0)
    assert measured_space(tiny_run(), data, print) == tiny_run()


def test_latents_are_measured_on_training_pictures_and_told(
    vae: Path, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, told, clock = ShapesConfig().build(0), [], iter(range(0, 10_000, 3))
    monkeypatch.setattr(latents.time, "monotonic", lambda: next(clock))
    run = derive(in_latents(tiny_run(), vae), data, told.append)
    batches = [data.train(step, 8).images for step in range(32)]
    wanted = LatentConfig(path=vae).build().measure([torch.cat(batches)])
    assert (space_of(run).shift, space_of(run).scale) == wanted
    assert told[0] == "latents of 8 of 256 training pictures measured"
    assert "measured on training pictures: model.space.shift and model.space.scale" in told
    assert derive(run, data, told.append) == run


def test_prepared_pixels_are_measured_as_others_are(
    vae: Path, tmp_path: Path, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "PICTURES", 16)
    prepare("shapes:24", tmp_path / "set", Preparation(size=32))
    run = in_latents(tiny_run(), vae).model_copy(update={"data": PreparedConfig(path=tmp_path / "set")})
    prepared = derive(run, run.data.build(0), print)
    assert None not in (space_of(prepared).shift, space_of(prepared).scale)


def test_going_on_takes_what_was_recorded(vae: Path, tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    run = in_latents(tiny_run(steps=2, save_every=1), vae)
    assert recorded_space(run, tmp_path / "run") == run
    train(run, tmp_path / "run")
    record = tmp_path / "run" / "run.yaml"
    there = read_yaml(Run, record)
    assert space_of(there).shift and space_of(there).scale
    assert recorded_space(run, tmp_path / "run").model == there.model
    for step in ("step-00000002",):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "_pictures", lambda data, say: iter([torch.full((1, 3, 32, 32), float("nan"))]))
        assert train(run, tmp_path / "run").config.space == space_of(there)
        with pytest.raises(ValueError, match=r"channel 0 of the training pictures' latents"):
            train(run, tmp_path / "other")
    given = space_of(there).model_copy(update={"scale": (1.0,)})
    other = run.model_copy(update={"model": run.model.model_copy(update={"space": given})})
    with pytest.raises(ValueError, match=r"holds another run: model.space.scale is \[.*\] there, \[1.0\] here"):
        train(other, tmp_path / "run")


@pytest.mark.skipif(not EMOJI.is_dir(), reason="$FROMNOISE_DATA/noto_emoji_128 is absent")
def test_a_model_is_trained_on_taef2s_latents_of_emoji_saved_loaded_and_drawn_with(
    taef2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (EMOJI / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:32]
    pictures = tmp_path / "emoji"
    (pictures / "images").mkdir(parents=True)
    for line in lines:
        shutil.copy(EMOJI / json.loads(line)["file_name"], pictures / "images")
    (pictures / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    model = ModelConfig(
        backbone=MMDiTConfig(patch=1, width=64, depth=2, head_width=32),
        conditioner=TextConfig(width=32, depth=1, heads=2, vocabulary=300),
        space=LatentConfig(path=taef2),
        sampling=Sampling(steps=4, guidance=2.0),
    )
    usual = {"batch": 4, "warmup": 1, "device": "cpu", "precision": "float32", "compile": "off", "log_every": 1}
    training = Training.model_validate({"steps": 20, **usual})
    run, place = Run(data=FolderConfig(path=pictures, size=64), model=model, training=training), tmp_path / "run"
    monkeypatch.setattr(latents, "PICTURES", 32)
    monkeypatch.setattr(validation, "COUNT", 2 * validation.BINS)
    trained = train(run, place)
    told = capsys.readouterr().err
    assert "measured on training pictures: model.space.shift and model.space.scale" in told
    assert "latents of a frozen VAE of 2.68M parameters, 8 pixels a cell" in told and "and 28 more" in told

    recorded = space_of(read_yaml(Run, place / "run.yaml"))
    assert recorded.shift and recorded.scale and len(recorded.shift) == len(recorded.scale) == 32
    with safe_open(place / "checkpoints" / "step-00000020" / "model.safetensors", framework="np") as file:
        state = json.loads(file.metadata()["space"])
    assert state["shift"] == pytest.approx(recorded.shift) and state["scale"] == pytest.approx(recorded.scale)
    z = trained.space.latent(trained.space.encode(run.data.build(0).train(0, 32).images))  # (B, 32, 8, 8)
    assert z.mean((0, 2, 3)).abs().max() < 0.3 and (z.std((0, 2, 3)) - 1).abs().max() < 0.3

    losses = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    learned = [line["loss"] for line in losses if "loss" in line]
    assert np.mean(learned[-5:]) < 0.9 * np.mean(learned[:5])
    again = load(place)
    assert again.latent_shape(64, 64) == (32, 8, 8)
    drawn = again("grinning face", seed=1)[0]
    assert drawn.size == (64, 64) and drawn.mode == "RGB" and np.asarray(drawn).std() > 0
    assert np.array_equal(np.asarray(drawn), np.asarray(trained("grinning face", seed=1)[0]))
