"""Finding the weights in what a user points at."""

from __future__ import annotations

from pathlib import Path

import pytest

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.config import AutoencoderConfig
from fromnoise.core.config import write_yaml
from fromnoise.models.config import VAEConfig
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.place import chosen_sampling, config_at, shipped
from fromnoise.training.run import VAERun


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (90, 100, 1000):
        path = tmp_path / "run" / "checkpoints" / f"step-{step:08}"
        path.mkdir(parents=True)
        for name in ("model", "ema", "optimizer"):
            (path / f"{name}.safetensors").touch()
    (tmp_path / "run" / "checkpoints" / ".step-00002000.partial").mkdir()
    return tmp_path / "run"


def test_a_run_means_its_last_whole_checkpoint(run: Path) -> None:
    assert weights(run) == run / "checkpoints" / "step-00001000" / "ema.safetensors"
    assert weights(str(run), raw=True) == run / "checkpoints" / "step-00001000" / "model.safetensors"


def test_a_checkpoint_and_a_file_mean_themselves(run: Path) -> None:
    path = run / "checkpoints" / "step-00000090"
    assert weights(path) == path / "ema.safetensors"
    assert weights(path / "model.safetensors") == path / "model.safetensors"


def test_what_is_no_model_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing at none; allowed: a run directory"):
        weights("none")
    with pytest.raises(ValueError, match="no checkpoint in "):
        weights(tmp_path)
    with pytest.raises(ValueError, match="is one file of weights"):
        weights(run / "checkpoints" / "step-00000090" / "ema.safetensors", raw=True)


def test_no_place_means_the_model_that_comes_along() -> None:
    drawn, named = (model.state_dict() for model in (load(device="cpu"), load(shipped(), device="cpu")))
    assert all(bool((drawn[key] == named[key]).all()) for key in named)


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("sampler: euler", {"sampler": "euler", "eta": 0.0}),  # eta is ddim's
        ("steps: 7\nguidance: 1", {"steps": 7, "guidance": 1.0}),
        ("sampler: ddim\nshift: 1", {"shift": 1.0}),
    ],
)
def test_what_a_choice_leaves_out_is_as_the_checkpoint_has_it(tmp_path: Path, written: str, changed: dict) -> None:
    usual = Sampling(sampler="ddim", steps=2, guidance=3.5, interval=(0.0, 0.8), shift=3.0, eta=0.5)
    assert chosen_sampling(tmp_path, usual) is None
    (tmp_path / "sampling.yaml").write_text(written)
    assert chosen_sampling(tmp_path, usual) == usual.model_copy(update=changed)


def test_a_vae_is_told_with_what_it_is_for(tmp_path: Path) -> None:
    vae = AutoencoderConfig(vae=VAEConfig(width=8, multipliers=(1, 2), layers=1, groups=4))
    run = tmp_path / "run"
    file = run / "checkpoints" / "step-00000004" / "ema.safetensors"
    file.parent.mkdir(parents=True)
    write_yaml(VAERun(), run / "run.yaml")
    Autoencoder.build(vae, seed=0).save(file, {})
    what = "holds a VAE, which draws nothing by itself; train a model in its latents, with --model.space.type latent"
    for read in (load, config_at):
        with pytest.raises(ValueError, match=rf"ema\.safetensors {what} --model\.space\.path {run.resolve()}/vae$"):
            read(run)
