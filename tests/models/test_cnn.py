"""The small network of a first course."""

import pytest
import torch
from pydantic import ValidationError

from fromnoise.core.types import Cond
from fromnoise.models.cnn import CNN
from fromnoise.models.config import CNNConfig


def model_of(channels: int = 1, random: bool = True) -> CNN:
    torch.manual_seed(0)
    model = CNN(CNNConfig(width=16), channels, cond_width=10)
    if random:
        torch.nn.init.normal_(model.conv_out.weight)  # it starts at 0, which would hide all the others
    return model


def inputs(channels: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, Cond]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, channels, height, width, generator=generator)
    tokens = torch.randn(3, 2, 10, generator=generator)
    vector = torch.randn(3, 10, generator=generator)
    return x, torch.rand(3, generator=generator), Cond(tokens, torch.ones(3, 2, dtype=torch.bool), vector)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 4, 4), (2, 12, 20)])
def test_any_sides_that_4_divides(channels: int, height: int, width: int) -> None:
    x, t, cond = inputs(channels, height, width)
    y = model_of(channels)(x, t, cond)
    assert y.shape == x.shape and y.abs().max() > 0.1


def test_starts_at_zero() -> None:
    x, t, cond = inputs(1, 8, 8)
    assert torch.equal(model_of(random=False)(x, t, cond), torch.zeros_like(x))


def test_every_parameter_gets_a_gradient() -> None:
    model = model_of()
    model(*inputs(1, 8, 8)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, name


def test_pictures_are_apart_and_each_hears_its_time_and_its_vector() -> None:
    model = model_of()
    x, t, cond = inputs(1, 8, 8)
    y, first = model(x, t, cond), torch.tensor([1.0, 0.0, 0.0])
    for other in (
        model(x + first[:, None, None, None], t, cond),
        model(x, t + 0.3 * first, cond),
        model(x, t, Cond(cond.tokens, cond.mask, cond.vector + first[:, None])),
    ):
        apart = (other - y).abs().amax((1, 2, 3))
        assert apart[0] > 1e-2 and apart[1:].max() < 1e-5


def test_tokens_are_not_read() -> None:
    model = model_of()
    x, t, cond = inputs(1, 8, 8)
    other = Cond(cond.tokens * torch.nan, ~cond.mask, cond.vector)
    assert torch.equal(model(x, t, other), model(x, t, cond))


def test_every_place_sees_the_whole_of_a_small_picture() -> None:
    model = model_of()
    x, t, cond = inputs(1, 12, 12)
    x.requires_grad_()
    model(x, t, cond)[0, 0, 0, 0].backward()
    assert x.grad is not None and (x.grad[0] != 0).all() and (x.grad[1:] == 0).all()


@pytest.mark.parametrize(("silent", "before"), [("halve1", "down1.conv1"), ("halve2", "down2.conv1")])
def test_what_is_not_passed_down_is_passed_across(silent: str, before: str) -> None:
    model = model_of()
    torch.nn.init.zeros_(model.get_parameter(silent + ".weight"))
    model(*inputs(1, 8, 8)).square().sum().backward()
    reached = model.get_parameter(before + ".weight").grad
    assert reached is not None and reached.abs().max() > 1e-3


def test_autocast_stays_close() -> None:
    model = model_of()
    x, t, cond = inputs(1, 8, 8)
    with torch.no_grad():
        full = model(x, t, cond)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x, t, cond)
    assert (half - full).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize(("height", "width"), [(30, 28), (28, 26)])
def test_other_sides_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"size {height}x{width} is not a multiple of 4"):
        model_of()(*inputs(1, height, width))
    assert CNNConfig().multiple == 4


@pytest.mark.parametrize("width", [8, 20])
def test_widths_that_cannot_be_are_refused(width: int) -> None:
    with pytest.raises(ValidationError):  # the norm needs groups of 2 channels or more
        CNNConfig(width=width)


def test_the_defaults_are_as_large_as_said() -> None:
    model = CNNConfig().build(channels=1, cond_width=192)
    assert sum(p.numel() for p in model.parameters()) == 1_840_561


def test_blocks_hold_the_condition() -> None:
    model = model_of()
    assert len(model.blocks()) == 5
    assert {name.partition(".")[0] for name, _ in model.named_parameters() if ".said." in name} == {
        name for name, module in model.named_children() if module in model.blocks()
    }
