"""Latent space: the stock class's latents, moved and scaled; frozen, and known by its hash."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from fromnoise.data.pictures import read_picture
from fromnoise.space import latent
from fromnoise.space.config import LatentConfig
from fromnoise.space.folder import CONFIG, WEIGHTS, VAEFault

SaveVae = Callable[..., Path]
SHIFT, SCALE = (0.1, -0.2, 0.3, 0.0), (0.5, 1.0, 2.0, 0.25)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny autoencoder without deviations: latents of 4 channels on half the side."""
    folder = tmp_path_factory.mktemp("tiny")
    options: dict[str, Any] = {  # diffusers annotates tuples of one
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderTiny(**options).save_pretrained(folder)
    return folder


def pictures(count: int = 2, height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def column(numbers: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(numbers).reshape(1, -1, 1, 1)


@torch.no_grad()
def test_latents_are_draws_of_the_stock_class_moved_and_scaled(vae: Path) -> None:
    space = LatentConfig(path=vae, shift=SHIFT, scale=SCALE).build()
    stock: Any = AutoencoderKL.from_pretrained(vae)
    images = pictures()
    posterior = stock.encode(images, return_dict=False)[0]
    stored = space.encode(images)
    assert stored.shape == (2, 8, 4, 6) and space.latent_shape(3, 8, 12) == (4, 4, 6)
    torch.testing.assert_close(stored, torch.cat((posterior.mean, posterior.std), 1), atol=1e-5, rtol=1e-5)

    noise = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(5))
    drawn = posterior.mean + posterior.std * noise
    z = space.latent(stored, torch.Generator().manual_seed(5))
    torch.testing.assert_close(z, (drawn - column(SHIFT)) * column(SCALE), atol=1e-5, rtol=1e-5)
    wanted = stock.decode(drawn, return_dict=False)[0].clamp(-1, 1)
    torch.testing.assert_close(space.decode(z), wanted, atol=1e-5, rtol=0)


def test_every_draw_is_another_and_follows_the_stored_mean_and_deviation(vae: Path) -> None:
    space = LatentConfig(path=vae, shift=(0.0,), scale=(1.0,)).build()
    stored = torch.cat((torch.full((1, 4, 64, 64), 3.0), torch.full((1, 4, 64, 64), 0.5)), 1)
    generator = torch.Generator().manual_seed(0)
    a, b = space.latent(stored, generator), space.latent(stored, generator)
    assert not torch.equal(a, b)
    assert abs(a.mean() - 3) < 0.02 and abs(a.std() - 0.5) < 0.02


def test_shift_and_scale_are_those_given_and_nothing_is_drawn_without(tmp_path: Path, save_vae: SaveVae) -> None:
    folder = save_vae(tmp_path, scaling_factor=0.5, shift_factor=0.25)
    given = LatentConfig(path=folder, shift=(1.0, 2.0, 3.0, 4.0), scale=(2.0,)).build()
    assert given.state == {
        "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "shift": [1, 2, 3, 4],
        "scale": [2] * 4,
    }
    assert given.notice.endswith("2 pixels a cell, (z - 1) * 2, (z - 2) * 2, (z - 3) * 2, (z - 4) * 2")
    for numbers in ({}, {"shift": (0.0,)}, {"scale": (1.0,)}):
        space = LatentConfig.model_validate({"path": folder, **numbers}).build()
        stored = space.encode(pictures())
        for ask in (lambda: space.latent(stored), lambda: space.decode(stored[:, :4]), lambda: space.state):  # noqa: B023
            with pytest.raises(ValueError, match=r"model.space.shift and model.space.scale are not known: give them"):
                ask()


def test_measured_latents_have_mean_0_and_deviation_1(vae: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 3, 16, 16, generator=generator) * 2 - 1 + torch.randn(24, 3, 1, 1, generator=generator)
    told: list[str] = []
    config = LatentConfig(path=vae).measured(images.split(8), torch.device("cpu"), told.append)
    assert config.shift and config.scale and len(config.shift) == len(config.scale) == 4
    space = config.build()
    stored = space.encode(images)
    z = torch.cat([space.latent(stored, generator) for _ in range(20)]).double()
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4).double(), atol=0.02, rtol=0)
    mean, std = stored.double().chunk(2, 1)
    assert std.mean() > 0.1, "the encoder's own deviation must matter here"
    wanted = (mean.var((0, 2, 3), correction=0) + std.square().mean((0, 2, 3))).rsqrt()
    torch.testing.assert_close(torch.tensor(config.scale).double(), wanted, atol=0, rtol=1e-4)
    assert told[0] == "measured on training pictures: model.space.shift and model.space.scale"
    assert told[1].startswith(f"{vae / CONFIG} says otherwise: scale 0.1822, measured ") and len(told) == 2


def test_only_what_is_left_out_is_measured(vae: Path) -> None:
    told: list[str] = []

    def measured(config: LatentConfig) -> LatentConfig:
        return config.measured([pictures()], torch.device("cpu"), told.append)

    both = measured(LatentConfig(path=vae))
    assert measured(LatentConfig(path=vae, shift=(7.0,))) == both.model_copy(update={"shift": (7.0,)})
    assert told[2] == "measured on training pictures: model.space.scale"
    given = LatentConfig(path=vae, shift=SHIFT, scale=SCALE)

    def never() -> Iterator[torch.Tensor]:
        raise AssertionError("pictures are read")
        yield

    assert given.measured(never(), torch.device("cpu"), told.append) is given


def test_pictures_of_which_nothing_can_be_measured_are_refused(vae: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pictures have 1 channels; the VAE at model\.space\.path takes 3"):
        LatentConfig(path=vae).build().measure([pictures()[:, :1]])
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tiny / WEIGHTS)
    last = tensors["encoder.layers.4.weight"]
    for wrong, told in ((0.0, "0"), (float("nan"), "nan")):
        last[2] = wrong
        save_file(tensors, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=f"channel 2 of .* has a standard deviation of {told}: give") as error:
            LatentConfig(path=tmp_path).build().measure([pictures(8)])
        assert "\n" not in str(error.value)


@torch.no_grad()
def test_latents_without_a_deviation_are_stored_by_themselves(tiny: Path) -> None:
    space = LatentConfig(path=tiny, shift=SHIFT, scale=SCALE).build()
    stock: Any = AutoencoderTiny.from_pretrained(tiny)
    images = pictures()
    z = stock.encode(images, return_dict=False)[0]
    stored = space.encode(images)
    assert not space.std and stored.shape == (2, 4, 4, 6) and space.latent_shape(3, 8, 12) == (4, 4, 6)
    torch.testing.assert_close(stored, z, atol=1e-5, rtol=0)
    generator = torch.Generator().manual_seed(0)
    latent = space.latent(stored, generator)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())
    torch.testing.assert_close(latent, (z - column(SHIFT)) * column(SCALE), atol=1e-5, rtol=0)
    wanted = stock.decode(z, return_dict=False)[0].clamp(-1, 1)
    torch.testing.assert_close(space.decode(latent), wanted, atol=1e-5, rtol=0)
    assert not list(space.parameters()) and not space.state_dict()

    shift, scale = space.measure([images])
    torch.testing.assert_close(torch.tensor(shift), z.mean((0, 2, 3)), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(scale), 1 / z.std((0, 2, 3), correction=0), atol=0, rtol=1e-4)


PHOTOGRAPHS = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "coco_mini_256" / "images"


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="$FROMNOISE_DATA/coco_mini_256 is absent")
def test_taef2_gives_photographs_back_as_well_as_published(taef2: Path) -> None:
    files = sorted(PHOTOGRAPHS.iterdir())[::19]
    images = torch.stack([torch.tensor(read_picture(file, 256, 255)) for file in files]).float() / 127.5 - 1
    space = LatentConfig(path=taef2, shift=(0.0,), scale=(1.0,)).build()
    assert space.notice.startswith("latents of a frozen VAE of 2.68M parameters, 8 pixels a cell")
    stored = space.encode(images)
    assert stored.shape == (4, 32, 32, 32)
    error = ((space.decode(space.latent(stored)) - images) / 2).square().mean()  # of pixels in [0, 1]
    assert 24 < -10 * error.log10() < 29


@pytest.mark.parametrize("numbers", [{"shift": (0.0, 0.0)}, {"scale": (1.0, 1.0, 0.0, 1.0)}, {"scale": ()}])
def test_numbers_that_fit_no_channels_are_refused(vae: Path, numbers: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=rf"model.space.{next(iter(numbers))} is \(.*\); allowed: 1 or 4 numbers"):
        LatentConfig(path=vae, **numbers).build()  # type: ignore[arg-type]


def test_nothing_of_it_is_trained_or_saved_and_a_device_moves_its_weights(vae: Path) -> None:
    space = LatentConfig(path=vae, shift=SHIFT, scale=SCALE).build()
    assert not list(space.parameters()) and not space.state_dict()
    images = pictures().requires_grad_()
    assert not space.encode(images).requires_grad
    assert not space.decode(torch.randn(1, 4, 2, 2).requires_grad_()).requires_grad
    latent = space.latent(torch.zeros(1, 8, 2, 2))
    assert {buffer.device.type for buffer in space.to("meta").buffers()} == {"meta"}
    assert space.latent(torch.zeros(1, 8, 2, 2, device="meta")).device.type == "meta"
    assert space.decode(torch.zeros(1, 4, 2, 2, device="meta")).device.type == "meta"
    assert space.decode(torch.zeros(1, 4, 2, 2)).device.type == "meta"  # as the studio keeps what it drew
    assert torch.equal(space.latent(torch.zeros(1, 8, 2, 2)), latent)  # of which nothing is asked to make a sample


def test_building_it_spends_no_chance(vae: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    LatentConfig(path=vae).build()
    assert torch.equal(torch.rand(2), expected)


def test_many_pictures_go_through_in_parts(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = LatentConfig(path=vae, shift=(0.0,), scale=(1.0,)).build()
    images = pictures(5)
    whole = space.encode(images)
    seen: list[int] = []
    monkeypatch.setattr(latent, "PIXELS", 2 * 8 * 12 + 1)
    space.vae.encoder.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    space.vae.decoder.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    torch.testing.assert_close(space.encode(images), whole, atol=1e-5, rtol=1e-5)
    assert space.decode(whole[:, :4]).shape == images.shape
    assert seen == [2, 2, 1, 2, 2, 1]
    monkeypatch.setattr(latent, "PIXELS", 1)
    assert space.encode(images).shape == whole.shape


def test_half_precision_files_are_read_as_float32(vae: Path, tmp_path: Path) -> None:
    shutil.copy(vae / CONFIG, tmp_path)
    save_file({name: value.half() for name, value in load_file(vae / WEIGHTS).items()}, tmp_path / WEIGHTS)
    space = LatentConfig(path=tmp_path).build()
    assert {buffer.dtype for buffer in space.buffers()} == {torch.float32}
    full = LatentConfig(path=vae).build().encode(pictures())
    torch.testing.assert_close(space.encode(pictures()), full, atol=1e-2, rtol=1e-2)


def test_a_checkpoint_takes_its_own_vae_and_no_other(vae: Path, tmp_path: Path, save_vae: SaveVae) -> None:
    given = LatentConfig(path=vae, shift=SHIFT, scale=(2.0,))
    state = given.build().state
    moved = shutil.copytree(vae, tmp_path / "moved")
    for config in (given, given.model_copy(update={"path": moved}), LatentConfig(path=moved)):
        assert config.restore(state).state == state  # the numbers that were trained with
    other = save_vae(tmp_path / "other", seed=1)
    with pytest.raises(VAEFault, match=rf"{other} holds another VAE \(sha256 \w{{12}}\.\.\.\) than the model") as error:
        LatentConfig(path=other).restore(state)
    assert "\n" not in str(error.value)
    told = "model.space.scale is (2.0, 2.0, 2.0, 2.5), but the model was trained with [2.0, 2.0, 2.0, 2.0]"
    with pytest.raises(ValueError, match=re.escape(told)):
        given.model_copy(update={"scale": (2.0, 2.0, 2.0, 2.5)}).restore(state)


def test_pictures_of_other_channels_are_refused(vae: Path) -> None:
    with pytest.raises(ValueError, match=r"pictures have 1 channels; the VAE at model\.space\.path takes 3"):
        LatentConfig(path=vae).build().latent_shape(1, 8, 8)


def test_weights_that_are_damaged_or_of_another_architecture_are_refused_in_one_line(vae: Path, tmp_path: Path) -> None:
    shutil.copy(vae / CONFIG, tmp_path)
    (tmp_path / WEIGHTS).write_bytes((vae / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(VAEFault, match="cannot read") as error:
        LatentConfig(path=tmp_path).build()
    assert "\n" not in str(error.value)
    tensors = load_file(vae / WEIGHTS)
    save_file({name: value for name, value in tensors.items() if "quant" not in name}, tmp_path / WEIGHTS)
    with pytest.raises(VAEFault, match=r"not this model's weights: .*post_quant_conv.weight") as error:
        LatentConfig(path=tmp_path).build()
    assert "\n" not in str(error.value)
