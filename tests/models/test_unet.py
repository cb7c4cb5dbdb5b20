"""The backbone against diffusers' own class: same weights, same output."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import ValidationError

from fromnoise.core.types import Cond
from fromnoise.models.config import UNetConfig
from fromnoise.models.unet import UNet
from fromnoise.nn.embed import time_features

TWO = UNetConfig(width=12, multipliers=(1, 2), layers=1, attention=(1,), heads=3, groups=4)
CONFIGS = {
    "two levels": TWO,
    "one level": UNetConfig(width=20, multipliers=(1,), layers=2, attention=(0,), heads=2, groups=10),
    "SD1's four": UNetConfig(width=8, multipliers=(1, 2, 4, 4), layers=2, attention=(0, 1, 2), heads=4, groups=4),
    "three layers": UNetConfig(width=18, multipliers=(1, 3, 2), layers=3, attention=(0, 2), heads=9, groups=3),
    "only the middle": UNetConfig(width=10, multipliers=(2, 1), layers=1, attention=(), heads=5, groups=5),
}


def randomise(model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.1)


def stock(config: UNetConfig) -> UNet2DConditionModel:
    attends = [level in config.attention for level in range(len(config.multipliers))]
    model = UNet2DConditionModel(
        in_channels=3,
        out_channels=3,
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        block_out_channels=tuple(config.width * multiplier for multiplier in config.multipliers),
        layers_per_block=config.layers,
        attention_head_dim=config.heads,
        norm_num_groups=config.groups,
        cross_attention_dim=14,
    )
    randomise(model)
    return model.eval()


def ours(config: UNetConfig = TWO) -> UNet:
    return UNet(config, channels=3, cond_width=14)


def inputs(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, Cond]:
    generator = torch.Generator().manual_seed(height * 31 + width)
    x = torch.randn(2, 3, height, width, generator=generator)
    tokens = torch.randn(2, 7, 14, generator=generator)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    return x, torch.rand(2, generator=generator), Cond(tokens, mask, tokens.mean(1))


def answer_of(reference: UNet2DConditionModel, x: torch.Tensor, t: torch.Tensor, cond: Cond) -> torch.Tensor:
    return reference(x, 1000 * t, cond.tokens, encoder_attention_mask=cond.mask, return_dict=False)[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_stock_class_on_any_size(name: str) -> None:
    config = CONFIGS[name]
    reference, model = stock(config), ours(config)
    model.import_state(reference.state_dict())
    for rows, columns in ((2, 2), (3, 1), (1, 4)):
        x, t, cond = inputs(rows * config.multiple, columns * config.multiple)
        with torch.no_grad():
            answer = answer_of(reference, x, t, cond)
            y = model(x, t, cond)
        assert answer.abs().max() > 0.1
        torch.testing.assert_close(y, answer, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_export_is_read_by_the_stock_class_and_draws_the_same(name: str) -> None:
    config = CONFIGS[name]
    model, reference = ours(config), stock(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    reference.load_state_dict(model.export_state(), strict=True)
    x, t, cond = inputs(config.multiple, 2 * config.multiple)
    with torch.no_grad():
        torch.testing.assert_close(model(x, t, cond), answer_of(reference, x, t, cond), atol=1e-5, rtol=0)


def test_import_undoes_export_and_export_is_a_copy() -> None:
    model, again = ours(), ours()
    randomise(model)
    exported = model.export_state()
    again.import_state(exported)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert value.data_ptr() != exported[key].data_ptr(), key


@pytest.mark.parametrize("key", ["conv_in.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"])
def test_a_missing_an_unknown_and_a_misshapen_key_are_refused_by_name_in_one_line(key: str) -> None:
    state = stock(TWO).state_dict()
    for wrong in (
        {name: value for name, value in state.items() if name != key},
        state | {key + "s": state[key]},
        state | {key: state[key][1:]},
    ):
        with pytest.raises(ValueError, match=key) as caught:
            ours().import_state(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    config = CONFIGS[name]
    model = ours(config)
    randomise(model)
    x, t, cond = inputs(2 * config.multiple, 2 * config.multiple)
    model(x, t, cond).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, key


def test_starts_at_zero_and_every_block_as_its_shortcut() -> None:
    model = ours()
    x, t, cond = inputs(4, 4)
    assert torch.equal(model(x, t, cond), torch.zeros_like(x))
    skip = model.conv_in(x)
    time, bias = torch.randn(2, 48), torch.zeros(2, 1, 1, 7)
    assert torch.equal(model.down_blocks[0](skip, time, cond.tokens, bias)[0], skip)


def test_padding_is_ignored_and_so_is_the_vector() -> None:
    model = ours()
    model.import_state(stock(TWO).state_dict())
    x, t, cond = inputs(4, 4)
    y = model(x, t, cond)
    other = Cond(torch.where(cond.mask[..., None], cond.tokens, 100.0), cond.mask, cond.vector + 1)
    torch.testing.assert_close(model(x, t, other), y, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x, t, cond.padded(12)), y, atol=1e-5, rtol=0)
    assert (model(x, t, Cond(cond.tokens + 1, cond.mask, cond.vector)) - y).abs().max() > 1e-3


def test_time_features_are_those_of_the_stock_class() -> None:
    t = torch.linspace(0, 1, 11)
    stocks = get_timestep_embedding(1000 * t, 20, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(time_features(t, 20), stocks, atol=1e-4, rtol=0)  # sines of up to 1000, in float32


def test_the_time_reaches_every_picture_by_itself() -> None:
    model = ours()
    randomise(model)
    x, t, cond = inputs(4, 4)
    later = model(x, t + torch.tensor([0.0, 0.3]), cond)
    apart = (later - model(x, t, cond)).abs().amax((1, 2, 3))
    assert apart[0] < 1e-6 and apart[1] > 1e-3


def test_blocks_are_all_but_the_ends() -> None:
    model = ours(CONFIGS["SD1's four"])
    assert len(model.blocks()) == 9
    inside = {id(p) for block in model.blocks() for p in block.parameters()}
    outside = {name.partition(".")[0] for name, p in model.named_parameters() if id(p) not in inside}
    assert outside == {"time_embedding", "conv_in", "conv_norm_out", "conv_out"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 14}, r"width 14, at level 0, must be 2, 3, \.\.\. times groups 4"),
        ({"groups": 12}, r"width 12, at level 0, must be 2, 3, \.\.\. times groups 12"),
        ({"heads": 8}, "width 12, at level 0, is not a multiple of heads 8"),
        ({"attention": (0, 2)}, "attention names level 2; the last is 1"),
    ],
)
def test_an_impossible_config_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        ours(TWO.model_copy(update=change))
    assert "\n" not in str(caught.value)


def test_the_config_refuses_no_levels_and_an_odd_width() -> None:
    with pytest.raises(ValidationError):
        UNetConfig(multipliers=())
    with pytest.raises(ValidationError):  # a sine would have no cosine
        UNetConfig(width=15)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (8, 10), (4, 7)])
def test_a_picture_that_cannot_be_halved_is_refused(height: int, width: int) -> None:
    config = CONFIGS["three layers"]
    assert config.multiple == 4
    x, t, cond = inputs(height, width)
    with pytest.raises(ValueError, match=f"size {height}x{width} is not a multiple of 4, for 3 levels"):
        ours(config)(x, t, cond)


def test_autocast_stays_close() -> None:
    model = ours()
    model.import_state(stock(TWO).state_dict())
    x, t, cond = inputs(4, 4)
    with torch.no_grad():
        full = model(x, t, cond)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x, t, cond)
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_the_defaults_are_as_large_as_said() -> None:
    model = UNetConfig().build(channels=3, cond_width=192)
    assert 24.0e6 < sum(p.numel() for p in model.parameters()) < 25.0e6
