"""A VAE's training as a user meets it, up to the folder that opens in diffusers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.config import AutoencoderConfig, Loss
from fromnoise.cli.main import main
from fromnoise.core.config import write_yaml
from fromnoise.core.types import Batch
from fromnoise.data.config import FolderConfig, ShapesConfig
from fromnoise.data.shapes import ShapesData
from fromnoise.models.config import VAEConfig
from fromnoise.pipeline.load import load
from fromnoise.space.config import LatentConfig
from fromnoise.space.folder import describe
from fromnoise.training import reconstruction
from fromnoise.training.loop import train, train_vae
from fromnoise.training.reconstruction import Reconstruction, Sample, fit
from fromnoise.training.run import AdamW, Run, VAERun, read_run

Making = Callable[..., VAERun]
GAN = {"adversarial": 0.5, "adversarial_start": 3, "discriminator_width": 8, "discriminator_layers": 1}


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "VALIDATED", 16)
    monkeypatch.setattr(reconstruction, "MEASURED", 256)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def with_loss(run: VAERun, **loss: Any) -> VAERun:
    return run.model_copy(update={"model": run.model.model_copy(update={"loss": Loss(**loss)})})


def test_what_is_tried_before_the_first_step_has_the_discriminator(tiny_vae_run: Making) -> None:
    """It begins later, and takes memory and time then."""
    run = with_loss(tiny_vae_run(), **GAN)
    trainee = Reconstruction(run, ShapesData(ShapesConfig(), 0), print)
    model = trainee.build()
    sample = trainee.trial(model, 4)
    model.loss(*sample).sum().backward()
    assert model.discriminator is not None
    assert all(p.grad is not None for p in model.discriminator.parameters())
    with torch.no_grad():  # as a forward is timed: without it, for its weight is made of gradients
        assert torch.equal(model.loss(*sample), model.loss(sample.images, sample.eps, 0))


@torch.no_grad()
def test_a_run_leaves_a_vae_that_opens_everywhere(
    tmp_path: Path, tiny_vae_run: Making, tiny_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_vae_run(ema=0.5)
    with torch.enable_grad():
        vae = train_vae(run, tmp_path)
    assert read_run(tmp_path / "run.yaml") == run
    told = lines(tmp_path)
    assert [line["step"] for line in told if "loss" in line] == [2, 4, 6]
    judged = [line for line in told if "psnr" in line]
    assert [line["step"] for line in judged] == [0, 3, 6]
    assert all(len(line[f"latent_{key}"]) == 4 for line in judged for key in ("mean", "std", "kurtosis"))
    with Image.open(tmp_path / "previews" / "step-00000006.png") as preview:
        assert preview.width > 2 * preview.height  # eight pictures, three times
    said = capsys.readouterr().err
    assert f"PSNR {judged[-1]['psnr']:.2f} dB, SSIM {judged[-1]['ssim']:.4f}, latent std " in said
    assert "3 x 32 x 32 pixels to 4 x 16 x 16 latent values, 3 times fewer" in said and "left 0:00" in said

    stock: Any = AutoencoderKL.from_pretrained(tmp_path / "vae")
    space = LatentConfig(path=tmp_path / "vae").build()
    images = run.data.build(0).train(0, 256).images
    mean, std = vae.encode(images)
    posterior = stock.encode(images, return_dict=False)[0]
    torch.testing.assert_close(posterior.mean, mean, atol=1e-5, rtol=1e-5)
    posterior = stock.encode(images.to(memory_format=torch.channels_last), return_dict=False)[0]  # as a space does
    torch.testing.assert_close(
        space.encode(images), torch.cat((posterior.mean, posterior.std), 1), atol=1e-5, rtol=1e-5
    )
    few = mean[:2]
    torch.testing.assert_close(stock.decode(few, return_dict=False)[0], vae.decode(few), atol=1e-5, rtol=1e-5)

    assert stock.config.scaling_factor == 1
    drawn = mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    for told_as, expected in (("latents_mean", drawn.mean((0, 2, 3))), ("latents_std", drawn.std((0, 2, 3)))):
        torch.testing.assert_close(torch.tensor(stock.config[told_as]), expected, atol=0.02, rtol=0.01)
    shift, scale = describe(tmp_path / "vae")[1:]
    space = LatentConfig(path=tmp_path / "vae", shift=shift, scale=scale).build()
    z = space.latent(space.encode(images), torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=0.03, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4), atol=0.03, rtol=0)

    latent = tiny_run(steps=2, previews=())
    backbone = latent.model.backbone.model_copy(update={"patch": 2})
    model = latent.model.model_copy(update={"space": LatentConfig(path=tmp_path / "vae"), "backbone": backbone})
    with torch.enable_grad():
        train(latent.model_copy(update={"model": model}), tmp_path / "drawing")
    assert load(tmp_path / "drawing")("a red circle")[0].size == (32, 32)


@pytest.mark.parametrize("loss", [{}, GAN])
def test_taken_up_again_it_ends_in_the_same_bits(tmp_path: Path, tiny_vae_run: Making, loss: dict[str, Any]) -> None:
    run = with_loss(tiny_vae_run(keep=3), **loss)
    train_vae(run, tmp_path)
    files = [*tmp_path.rglob("*.safetensors"), tmp_path / "vae" / "config.json"]
    assert len(files) == 11
    before = {path: path.read_bytes() for path in files if path.name != "optimizer.safetensors"}
    for name in ("checkpoints/step-00000004", "checkpoints/step-00000006", "vae"):
        shutil.rmtree(tmp_path / name)
    train_vae(run, tmp_path)
    assert [path.name for path, data in before.items() if path.read_bytes() != data] == []
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [2, 4, 6]

    shutil.rmtree(tmp_path / "vae")  # as a kill behind the last checkpoint leaves it
    train_vae(run, tmp_path)
    assert [path.name for path, data in before.items() if path.read_bytes() != data] == []


def test_the_discriminator_learns_from_its_step_on(tmp_path: Path, tiny_vae_run: Making) -> None:
    train_vae(with_loss(tiny_vae_run(keep=3), **GAN), tmp_path)

    def judge(step: int) -> list[torch.Tensor]:
        model = Autoencoder.load(tmp_path / "checkpoints" / f"step-{step:08}" / "model.safetensors")
        assert model.discriminator
        return [p for p in model.discriminator.parameters() if p.ndim == 4]  # a bias may stay: real and made even out

    fresh = Autoencoder.build(with_loss(tiny_vae_run(), **GAN).model, 0).discriminator
    assert fresh and torch.equal(judge(2)[0], fresh.first.weight)
    assert not any(torch.equal(a, b) for a, b in zip(judge(2), judge(4), strict=True))


def test_it_learns_to_reconstruct(tmp_path: Path, tiny_vae_run: Making) -> None:
    run = tiny_vae_run(steps=60, batch=8, warmup=5, validate_every=60, preview_every=60, save_every=60)
    train_vae(
        run.model_copy(update={"training": run.training.model_copy(update={"optimizer": AdamW(lr=5e-3)})}), tmp_path
    )
    first, last = (line for line in lines(tmp_path) if "psnr" in line)
    assert last["validation_raw"] < 0.3 * first["validation_raw"]
    assert last["validation_ema"] < 0.3 * first["validation_ema"]
    assert last["psnr"] > first["psnr"] + 5 and last["ssim"] > first["ssim"] + 0.2


def test_evaluate_tells_of_held_out_pictures(
    tmp_path: Path, tiny_vae_run: Making, capsys: pytest.CaptureFixture[str]
) -> None:
    train_vae(tiny_vae_run(), tmp_path)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), "--samples", "16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    last = lines(tmp_path)[-1]
    assert told.pop("pictures") == 16
    assert len(told) == 7
    for key, value in told.items():
        assert value == pytest.approx(last[key], rel=1e-4)
    assert main(["evaluate", str(tmp_path), "--samples", "16", "--raw"]) == 0
    table = capsys.readouterr().out
    assert "PSNR" in table and f"{last['psnr']:.6f}"[:4] not in table.partition("dB")[0].splitlines()[0]
    assert main(["evaluate", str(tmp_path), "--guidance", "3"]) == 2
    assert "unknown flag --guidance" in capsys.readouterr().err


def test_it_is_trained_from_its_record_and_no_other_run_takes_its_place(
    tmp_path: Path, tiny_vae_run: Making, tiny_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    write_yaml(tiny_vae_run(steps=2), tmp_path / "vae.yaml")
    assert main(["train", str(tmp_path / "vae.yaml"), "--directory", str(tmp_path / "run")]) == 0
    assert main(["train", str(tmp_path / "run"), "--model.loss.kl", "0.5"]) == 2
    assert "model.loss.kl is 0.01 there, 0.5 here" in capsys.readouterr().err
    with pytest.raises(ValueError, match="holds another run: type is 'vae' there, None here"):
        train(tiny_run(), tmp_path / "run")


def test_a_loss_that_is_no_number_is_told(
    tmp_path: Path, tiny_vae_run: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reconstruction.draw

    def poisoned(model: Any, images: torch.Tensor, step: int, generator: torch.Generator) -> Sample:
        sample = real(model, images, step, generator)
        if step == 4:
            sample.eps[2, 0, 0, 0] = float("inf")
        return sample

    monkeypatch.setattr(reconstruction, "draw", poisoned)
    with pytest.raises(ValueError, match="not finite at step 4: first in sample 2 of 4, the noise of sample 2; last"):
        train_vae(tiny_vae_run(), tmp_path)


@pytest.mark.parametrize(
    ("vae", "loss", "training", "told"),
    [
        ({"multipliers": (1,) * 7}, {}, {}, "pictures of 32 x 32 pixels do not fit a VAE of 7 levels, which takes mul"),
        ({}, {"adversarial": 1.0}, {"batch": 3, "accumulate": 2}, "training.batch is 3; allowed: multiples of"),
        ({}, {"adversarial": 1.0, "discriminator_layers": 4}, {}, "pictures of 32 x 32 pixels; its loss .* take 48 or"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny_vae_run: Making, vae: dict[str, Any], loss: dict[str, Any], training: dict[str, Any], told: str
) -> None:
    run = with_loss(tiny_vae_run(**training), **loss)
    changed = run.model.vae.model_copy(update=vae)
    run = run.model_copy(update={"model": run.model.model_copy(update={"vae": changed})})
    with pytest.raises(ValueError, match=told):
        fit(run, ShapesConfig().build(0), print)


def test_latents_and_buckets_that_do_not_fit_are_refused(tiny_vae_run: Making) -> None:
    class Latents(ShapesData):
        def validation(self, size: int) -> Batch:
            return super().validation(size)._replace(encoded=True)

    buckets = ShapesData(ShapesConfig(), 0)
    buckets.sizes = [(32, 32), (30, 33)]
    with pytest.raises(ValueError, match="serves latents; a VAE learns from pictures themselves"):
        fit(tiny_vae_run(), Latents(ShapesConfig(), 0), print)
    with pytest.raises(ValueError, match="pictures of 30 x 33 pixels do not fit a VAE of 2 levels"):
        fit(tiny_vae_run(), buckets, print)


def test_a_missing_file_of_weights_claims_no_directory(tmp_path: Path, tiny_vae_run: Making) -> None:
    run = with_loss(tiny_vae_run(), perceptual=1.0, vgg=tmp_path / "vgg", heads=tmp_path / "heads")
    with pytest.raises(ValueError, match=r"cannot read .*vgg"):
        train_vae(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_held_out_pictures_are_looked_at_once(tmp_path: Path) -> None:
    model = AutoencoderConfig(vae=VAEConfig(width=8, multipliers=(1, 2), layers=1, groups=4))
    for shade in range(30):
        Image.new("RGB", (16, 16), (8 * shade, 0, 0)).save(tmp_path / f"{shade}.png")
        (tmp_path / f"{shade}.txt").write_text("a colour")
    data = FolderConfig(path=tmp_path, size=16).build(0)
    parts = reconstruction.fixed(Autoencoder.build(model, 0), data, 50)
    images = torch.cat([images for images, _ in parts])
    assert 1 <= len(images) < 10 and len(images.unique(dim=0)) == len(images)


def test_grey_pictures_make_a_grey_vae() -> None:
    grey = ShapesData(ShapesConfig(), 0)
    grey.image_shape = (1, 32, 32)  # type: ignore[assignment]
    told: list[str] = []
    run = VAERun(model=AutoencoderConfig(vae=VAEConfig(width=8, multipliers=(1, 2), groups=4)))
    fitted = fit(run, grey, told.append)
    assert fitted.model.vae.channels == 1 and told == ["from the data: model.vae.channels 1"]
