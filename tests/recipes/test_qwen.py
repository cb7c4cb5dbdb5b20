"""The recipe qwen-258m: its shape, and the whole of it at toy size, on latents of real pictures."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fromnoise.cli.main import main
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.conditioning.folder import EncoderFault
from fromnoise.diffusion.times import LogitNormal
from fromnoise.models.config import MMDiTConfig, VAEConfig
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.recipes import RECIPES, named
from fromnoise.space.folder import WEIGHTS, VAEFault
from fromnoise.training.loop import train
from fromnoise.training.run import Run

EMOJI = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "noto_emoji_128"


def test_the_backbone_is_the_known_one_less_what_nothing_reads() -> None:
    model = named("qwen-258m").model
    assert isinstance(model.backbone, MMDiTConfig) and isinstance(model.conditioner, FrozenTextConfig)
    vae = VAEConfig()  # Stable Diffusion's
    assert (vae.latent_channels, model.size // vae.factor) == (4, 32)
    with torch.device("meta"):
        backbone = model.backbone.build(vae.latent_channels, model.conditioner.width)
    assert sum(p.numel() for p in backbone.parameters()) == 249_403_344 == 257_669_392 - 8_266_048
    assert model.backbone == MMDiTConfig(patch=2, width=768, depth=12, head_width=64, rope_theta=10000.0)
    assert (model.conditioner.encoders[0].length, model.conditioner.width) == (77, 768)


def test_it_is_trained_and_drawn_with_as_published() -> None:
    run = named("qwen-258m")
    objective, training = run.model.objective, run.training
    assert (objective.target, objective.measure, objective.times) == ("flow", "flow", LogitNormal())
    assert objective.dropout == 0.1
    assert run.model.sampling == Sampling(sampler="euler", steps=28, guidance=4.0)
    assert (training.optimizer.type, training.optimizer.lr) == ("adamw", 1e-4)
    assert (training.warmup, training.clip, training.decay) == (2000, 1.0, 0.0)
    assert 1 - 1 / (training.ema * training.steps) == pytest.approx(0.9995)


@pytest.mark.parametrize(("theta", "count"), [(10000.0, 5), (100.0, 9)])
def test_as_many_frequencies_turn_by_a_quarter_as_the_docstring_says(theta: float, count: int) -> None:
    patches, pairs = 256 // 8 // 2, 64 // 4
    turned = [patches * theta ** -(i / pairs) > math.pi / 2 for i in range(pairs)]
    assert (len(turned), sum(turned)) == (16, count)
    assert {5: "5 of an axis's 16 frequencies", 9: "it is 9"}[count] in (RECIPES["qwen-258m"].__doc__ or "")


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    """Eight real pictures and their captions."""
    lines = (EMOJI / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    (tmp_path / "emoji" / "images").mkdir(parents=True)
    for line in lines:
        shutil.copy(EMOJI / json.loads(line)["file_name"], tmp_path / "emoji" / "images")
    (tmp_path / "emoji" / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "emoji"


def shrunk(prepared: Path, vae: Path, encoder: Path) -> Run:
    """The recipe, 32 wide and 2 deep, on what was prepared with `vae` and `encoder`, for three steps."""
    values = named("qwen-258m").model_dump()
    values["data"] |= {"path": prepared}
    values["model"]["backbone"] |= {"width": 32, "depth": 2, "head_width": 16}
    values["model"]["conditioner"] |= {"width": 32, "encoders": [{"path": str(encoder), "length": 8}]}
    values["model"]["space"] |= {"path": vae}
    values["model"]["sampling"] |= {"steps": 2}
    values["training"] |= {"steps": 3, "batch": 4, "warmup": 1, "save_every": 1, "keep": 3, "device": "cpu"}
    values["training"] |= {"precision": "float32", "compile": "off", "previews": ("grinning face",)}
    return Run.model_validate(values)


def tensors_in(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


@pytest.mark.skipif(not EMOJI.is_dir(), reason="$FROMNOISE_DATA/noto_emoji_128 is absent")
def test_it_trains_resumes_and_draws_at_toy_size_and_refuses_what_it_was_not_trained_with(
    emoji: Path,
    tmp_path: Path,
    save_vae: Callable[..., Path],
    save_encoder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    vae, encoder, prepared = save_vae(tmp_path / "vae"), save_encoder(tmp_path / "clip", "bert"), tmp_path / "prepared"
    settings = Preparation(size=32, vae=vae, text=(EncoderConfig(path=str(encoder), length=8),))
    prepare(str(emoji), prepared, settings, "cpu")
    before = hashlib.sha256((vae / WEIGHTS).read_bytes()).hexdigest()
    run, place = shrunk(prepared, vae, encoder), tmp_path / "run"
    checkpoints = place / "checkpoints"
    model = train(run, place)
    assert "latents of a frozen VAE of" in capsys.readouterr().err
    assert model.latent_shape(32, 32) == (4, 16, 16)
    assert (place / "previews" / "step-00000003.png").is_file()

    first, last = (tensors_in(checkpoints / f"step-0000000{step}" / "model.safetensors") for step in (1, 3))
    assert {name.partition(".")[0] for name in last} == {"backbone", "conditioner"}
    assert all(bool(value.isfinite().all()) for value in last.values())
    assert not all(torch.equal(value, first[name]) for name, value in last.items())
    assert not any("space" in name for name in tensors_in(checkpoints / "step-00000003" / "optimizer.safetensors"))
    held, stock = dict(model.space.vae.named_buffers()), tensors_in(vae / WEIGHTS)
    assert held.keys() == stock.keys() and all(torch.equal(held[name], value) for name, value in stock.items())
    assert hashlib.sha256((vae / WEIGHTS).read_bytes()).hexdigest() == before == model.space.sha256

    for step in (2, 3):  # as if it had been stopped after the first step
        shutil.rmtree(checkpoints / f"step-0000000{step}")
    train(run, place)
    again = tensors_in(checkpoints / "step-00000003" / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in last.items())

    drawn = load(place)("grinning face", seed=1)[0]
    assert drawn.size == (32, 32) and drawn.mode == "RGB" and np.asarray(drawn).std() > 0
    assert load(place)("grinning face", size=(16, 24))[0].size == (24, 16)
    with pytest.raises(ValueError, match=r"size is 30x30 .*; allowed: multiples of 4 from 4 to 4096 pixels"):
        load(place)("grinning face", size=30)

    save_encoder(encoder, "bert", seed=1)
    for go_on in (lambda: load(place), lambda: train(run, place)):
        with pytest.raises(EncoderFault, match="holds another text encoder"):
            go_on()
    save_encoder(encoder, "bert")

    save_vae(vae, seed=1)
    with pytest.raises(VAEFault, match="holds another VAE") as error:
        load(place)
    assert "damaged" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(
        ValueError, match=r"^.*/prepared holds latents of another VAE \(sha256 .*\) than model.space.path"
    ):
        train(run, place)

    save_vae(vae)
    prepare(str(emoji), tmp_path / "again", settings.model_copy(update={"background": 0}), "cpu")
    shutil.rmtree(prepared)
    (tmp_path / "again").rename(prepared)
    with pytest.raises(ValueError, match=r"^.*/run holds another run: data.sha256 is '"):
        train(run, place)


def test_a_missing_vae_is_told_before_pictures_are_read_and_missing_pictures_next(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "qwen-258m", "--data.path", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("fromnoise: no folder at your-vae; model.space.path is") and told.count("\n") == 1
    assert main(["train", "qwen-258m", "--model.space.path", str(vae)]) == 2
    told = capsys.readouterr().err
    assert "no prepared data set at prepared/pictures" in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sizes_that_do_not_make_whole_patches_of_latents_are_refused(
    vae: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = shrunk(tmp_path, vae, folders["bert"]).model.model_copy(update={"size": 30})
    with pytest.raises(ValueError, match=r"model\.size is 30; allowed: multiples of 4 pixels"):
        Pipeline.build(model, ["a"], 0)
