"""The autoencoder against diffusers' own class: same weights, same moments, same pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fromnoise.models.config import VAEConfig
from fromnoise.models.vae import VAE, UpBlock

TWO = VAEConfig(width=8, multipliers=(1, 2), layers=1, groups=4)
CONFIGS = {
    "two levels": TWO,
    "SD's four": VAEConfig(width=4, multipliers=(1, 2, 4, 4), layers=2, groups=2),
    "FLUX's": VAEConfig(
        width=4, multipliers=(1, 2), layers=2, groups=2, latent_channels=16, quant=False, post_quant=False
    ),
    "no attention": TWO.model_copy(update={"attention": False}),
    "one mix before": TWO.model_copy(update={"quant": False}),
    "one mix behind": TWO.model_copy(update={"post_quant": False}),
    "grey, one level, wider than narrow": VAEConfig(channels=1, width=6, multipliers=(1,), layers=3, groups=3),
    "narrowing": VAEConfig(width=4, multipliers=(3, 1, 2), layers=1, groups=4),
}
SYSTEM_D = VAEConfig(width=64, multipliers=(1, 2, 4, 4), layers=1)
SYSTEM_B = VAEConfig(width=32, multipliers=(1, 2, 2), layers=1)


def stock(config: VAEConfig) -> AutoencoderKL:
    levels = len(config.multipliers)
    options: dict[str, Any] = {  # diffusers annotates tuples of one
        "in_channels": config.channels,
        "out_channels": config.channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(config.width * multiplier for multiplier in config.multipliers),
        "layers_per_block": config.layers,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.groups,
        "use_quant_conv": config.quant,
        "use_post_quant_conv": config.post_quant,
        "mid_block_add_attention": config.attention,
    }
    return AutoencoderKL(**options).eval()


def randomise(model: torch.nn.Module) -> None:
    """Weights of a size at which every one of them matters, and no norm is its start."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
        else:
            torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)


def both(config: VAEConfig) -> tuple[Any, VAE]:
    reference, model = stock(config), VAE(config)
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
        posterior, answer = model.encode(images), reference.encode(images, return_dict=False)[0]
        assert answer.mean.shape == (2, config.latent_channels, rows, columns)
        assert answer.mean.std() > 0.1 and (answer.std - 1).abs().max() > 0.1
        torch.testing.assert_close(posterior.mean, answer.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(posterior.std, answer.std, atol=1e-5, rtol=1e-5)
        decoded = reference.decode(answer.mean, return_dict=False)[0]
        assert decoded.shape == images.shape and decoded.std() > 0.1
        torch.testing.assert_close(model.decode(answer.mean), decoded, atol=1e-5, rtol=0)


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


def test_the_names_of_2022_are_read() -> None:
    reference, model = both(TWO)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in reference.state_dict().items():
        for new, name in old.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{name}.")
        state[key] = value
    assert len(state.keys() - reference.state_dict().keys()) == 16  # 4 layers of 2 tensors in 2 blocks
    again = VAE(TWO)
    again.import_state(state)
    read = again.state_dict()
    assert all(torch.equal(value, read[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("key", ["quant_conv.weight", "encoder.down_blocks.0.downsamplers.0.conv.weight"])
def test_a_missing_an_unknown_and_a_misshapen_key_are_refused_by_name_in_one_line(key: str) -> None:
    state = stock(TWO).state_dict()
    for wrong in (
        {name: value for name, value in state.items() if name != key},
        state | {key + "s": state[key]},
        state | {key: state[key][1:]},
    ):
        with pytest.raises(ValueError, match=key) as caught:
            VAE(TWO).import_state(wrong)
        assert "\n" not in str(caught.value)


def test_every_parameter_gets_a_gradient() -> None:
    _, model = both(TWO)
    mean, std = model.encode(normal(2, 3, 8, 8))
    model.decode(mean + std * normal(*mean.shape)).square().sum().backward()
    for key, parameter in model.named_parameters():
        # Softmax does not see a bias of the keys: the file has one, so there is one here.
        assert parameter.grad is not None and (parameter.grad.abs().max() > 1e-6 or key.endswith("to_k.bias")), key


def test_a_variance_beyond_reason_is_clamped() -> None:
    _, model = both(TWO)
    torch.nn.init.constant_(model.get_parameter("quant_conv.bias"), 1e4)
    assert model.encode(normal(1, 3, 4, 4)).std.unique().tolist() == pytest.approx([torch.tensor(10.0).exp().item()])


def test_widths_that_groups_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="VAE width 12, at level 1, is not a multiple of groups 8") as caught:
        VAE(VAEConfig(width=4, multipliers=(2, 3), groups=8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "count", "told"),
    [
        (VAEConfig(), 83_653_863, None),  # Stable Diffusion's
        (SYSTEM_D, 15_481_255, 16.36e6),  # its own blocks: 5.4 % more
        (SYSTEM_B, 954_567, 0.94e6),  # 1.5 % less
    ],
)
def test_sizes_are_those_of_known_autoencoders(config: VAEConfig, count: int, told: float | None) -> None:
    with torch.device("meta"):
        ours, theirs = VAE(config), stock(config)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == count
    assert told is None or abs(count / told - 1) < 0.06


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_a_compiled_block_in_bfloat16_passes_its_gradient_on() -> None:
    torch.manual_seed(0)
    block, x = UpBlock(64, 64, 2, 32, last=False), torch.randn(8, 64, 16, 16).bfloat16().requires_grad_()
    compiled = torch.compile(block, dynamic=False)

    def gradient(run: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return torch.autograd.grad(run(x).float().square().sum(), x)[0].float()

    expected = gradient(block)
    assert expected.norm() > 1
    assert (gradient(compiled) - expected).norm() < 0.05 * expected.norm()
