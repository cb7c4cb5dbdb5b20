"""Latent space: the stock class's latents, moved and scaled; frozen, and known by its hash."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from fromnoise.space import latent
from fromnoise.space.config import LatentConfig
from fromnoise.space.folder import CONFIG, WEIGHTS, VAEFault

SHIFT, SCALE = (0.1, -0.2, 0.3, 0.0), (0.5, 1.0, 2.0, 0.25)


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
    space = LatentConfig(path=vae, scale=(1.0,)).build()
    stored = torch.cat((torch.full((1, 4, 64, 64), 3.0), torch.full((1, 4, 64, 64), 0.5)), 1)
    generator = torch.Generator().manual_seed(0)
    a, b = space.latent(stored, generator), space.latent(stored, generator)
    assert not torch.equal(a, b)
    assert abs(a.mean() - 3) < 0.02 and abs(a.std() - 0.5) < 0.02


def test_shift_and_scale_are_the_published_ones_unless_given(tmp_path: Path, save_vae: Callable[..., Path]) -> None:
    folder = save_vae(tmp_path, scaling_factor=0.5, shift_factor=0.25)
    assert LatentConfig(path=folder).build().state == {
        "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "shift": [0.25] * 4,
        "scale": [0.5] * 4,
    }
    given = LatentConfig(path=folder, shift=(1.0, 2.0, 3.0, 4.0), scale=(2.0,)).build()
    assert given.state["shift"] == [1, 2, 3, 4] and given.state["scale"] == [2] * 4
    assert given.notice.endswith("2 pixels a cell, (z - 1) * 2, (z - 2) * 2, (z - 3) * 2, (z - 4) * 2")


@pytest.mark.parametrize("numbers", [{"shift": (0.0, 0.0)}, {"scale": (1.0, 1.0, 0.0, 1.0)}, {"scale": ()}])
def test_numbers_that_fit_no_channels_are_refused(vae: Path, numbers: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=rf"model.space.{next(iter(numbers))} is \(.*\); allowed: 1 or 4 numbers"):
        LatentConfig(path=vae, **numbers).build()  # type: ignore[arg-type]


def test_nothing_of_it_is_trained_or_saved_and_a_device_moves_all_of_it(vae: Path) -> None:
    space = LatentConfig(path=vae).build()
    assert not list(space.parameters()) and not space.state_dict()
    images = pictures().requires_grad_()
    assert not space.encode(images).requires_grad
    assert not space.decode(torch.randn(1, 4, 2, 2).requires_grad_()).requires_grad
    assert {buffer.device.type for buffer in space.to("meta").buffers()} == {"meta"}


def test_building_it_spends_no_chance(vae: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    LatentConfig(path=vae).build()
    assert torch.equal(torch.rand(2), expected)


def test_many_pictures_go_through_in_parts(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = LatentConfig(path=vae).build()
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


def test_a_checkpoint_takes_its_own_vae_and_no_other(vae: Path, tmp_path: Path, save_vae: Callable[..., Path]) -> None:
    state = LatentConfig(path=vae, shift=SHIFT).build().state
    moved = shutil.copytree(vae, tmp_path / "moved")
    assert LatentConfig(path=moved).restore(state).state == state  # the shift that was trained with
    other = save_vae(tmp_path / "other", seed=1)
    with pytest.raises(VAEFault, match=rf"{other} holds another VAE \(sha256 \w{{12}}\.\.\.\) than the model") as error:
        LatentConfig(path=other).restore(state)
    assert "\n" not in str(error.value)


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
