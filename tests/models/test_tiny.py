"""The tiny autoencoder against diffusers' own class: same weights, same latents, same pictures; and TAEF2's pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch import nn

from fromnoise.models.config import TinyConfig
from fromnoise.models.tiny import TinyAutoencoder

CONFIGS = {
    "TAESD's levels": TinyConfig(width=8),
    "SD3's latents": TinyConfig(width=8, latent_channels=16, encoder_layers=(1, 2, 1), decoder_layers=(2, 0, 1)),
    "grey, one level": TinyConfig(channels=1, width=4, encoder_layers=(2,), decoder_layers=(1,)),
}
POOLED = TinyConfig(width=8, encoder_layers=(1, 2), decoder_layers=(2, 1), midblock_norm=True)


def stock(config: TinyConfig) -> AutoencoderTiny:
    options: dict[str, Any] = {  # diffusers annotates tuples of one
        "in_channels": config.channels,
        "out_channels": config.channels,
        "encoder_block_out_channels": (config.width,) * len(config.encoder_layers),
        "decoder_block_out_channels": (config.width,) * len(config.decoder_layers),
        "latent_channels": config.latent_channels,
        "num_encoder_blocks": config.encoder_layers,
        "num_decoder_blocks": config.decoder_layers,
    }
    return AutoencoderTiny(**options).eval()


def randomise(model: nn.Module) -> None:
    """Weights of a size at which every one of them matters."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)


def both(config: TinyConfig) -> tuple[Any, TinyAutoencoder]:
    reference, model = stock(config), TinyAutoencoder(config)
    randomise(reference)
    model.import_state(reference.state_dict())
    return reference, model


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_the_stock_class_on_any_size(name: str) -> None:
    config = CONFIGS[name]
    reference, model = both(config)
    for rows, columns in ((4, 4), (1, 3)):
        images = normal(2, config.channels, rows * config.factor, columns * config.factor)
        (z,), answer = model.encode(images), reference.encode(images, return_dict=False)[0]
        assert answer.shape == (2, config.latent_channels, rows, columns) and answer.std() > 0.1
        torch.testing.assert_close(z, answer, atol=1e-5, rtol=0)
        wide = 4 * normal(*z.shape)  # beyond where the decoder bends them
        decoded = reference.decode(wide, return_dict=False)[0]
        assert decoded.shape == images.shape and decoded.std() > 0.1
        torch.testing.assert_close(model.decode(wide), decoded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_pass_both_ways_and_export_is_a_copy(name: str) -> None:
    reference, model = both(CONFIGS[name])
    exported, own, wanted = model.export_state(), model.state_dict(), reference.state_dict()
    fresh = stock(CONFIGS[name])
    fresh.load_state_dict(exported, strict=True)
    read = fresh.state_dict()
    assert exported.keys() == read.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(value, read[key]), key
        assert exported[key].data_ptr() != own[key].data_ptr(), key


@pytest.mark.parametrize("key", ["encoder.layers.0.weight", "decoder.layers.2.conv.4.bias"])
def test_a_missing_an_unknown_and_a_misshapen_key_are_refused_by_name_in_one_line(key: str) -> None:
    config = CONFIGS["TAESD's levels"]
    state = stock(config).state_dict()
    for wrong in (
        {name: value for name, value in state.items() if name != key},
        state | {key + "s": state[key]},
        state | {key: state[key][1:]},
    ):
        with pytest.raises(ValueError, match=key) as caught:
            TinyAutoencoder(config).import_state(wrong)
        assert "\n" not in str(caught.value)


class Told(nn.Module):
    """A block of the stock class that is told of the whole picture first."""

    def __init__(self, block: nn.Module, state: dict[str, torch.Tensor], prefix: str):
        super().__init__()
        self.block = block
        self.widen, _, self.norm, _, self.narrow = (state.get(f"{prefix}.pool.{i}.weight") for i in (0, 0, 1, 1, 3))
        self.bias = state[f"{prefix}.pool.1.bias"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.widen is not None and self.norm is not None and self.narrow is not None
        wide = torch.einsum("bdrc,ed->berc", x, self.widen[:, :, 0, 0]).unflatten(1, (4, -1))
        at, spread = wide.mean((2, 3, 4), keepdim=True), wide.var((2, 3, 4), correction=0, keepdim=True)
        normed = ((wide - at) / (spread + 1e-5).sqrt()).flatten(1, 2)
        normed = normed * self.norm[:, None, None] + self.bias[:, None, None]
        return self.block(x + torch.einsum("berc,de->bdrc", normed.relu(), self.narrow[:, :, 0, 0]))


@torch.no_grad()
def test_pools_tell_the_lowest_blocks_of_the_whole_picture() -> None:
    model = TinyAutoencoder(POOLED)
    randomise(model)
    state = model.export_state()
    reference: Any = stock(POOLED.model_copy(update={"midblock_norm": False}))
    reference.load_state_dict({key: value for key, value in state.items() if ".pool." not in key}, strict=True)
    for side, layers in (("encoder", (3, 4)), ("decoder", (2, 3))):
        for i in layers:
            stack = reference.get_submodule(f"{side}.layers")
            stack[i] = Told(stack[i], state, f"{side}.layers.{i}")
    images = normal(2, 3, 6, 10)
    (z,), answer = model.encode(images), reference.encode(images, return_dict=False)[0]
    torch.testing.assert_close(z, answer, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.decode(z), reference.decode(z, return_dict=False)[0], atol=1e-5, rtol=0)


def test_every_parameter_gets_a_gradient() -> None:
    model = TinyAutoencoder(POOLED)
    randomise(model)
    model.decode(model.encode(normal(2, 3, 8, 8)).mean).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, key


def test_the_published_weights_fit(taef2: Path) -> None:
    with torch.device("meta"):
        model = TinyAutoencoder(TinyConfig(latent_channels=32, midblock_norm=True))
    weights = load_file(taef2 / "diffusion_pytorch_model.safetensors")
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in weights.items()}
    count = {side: sum(p.numel() for p in model.get_submodule(side).parameters()) for side in ("encoder", "decoder")}
    assert count == {"encoder": 1_338_528, "decoder": 1_338_499}
