"""DiT and CrossDiT against diffusers' own classes: same weights, same output."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel
from torch import nn

from fromnoise.core.types import Cond
from fromnoise.models.config import CrossDiTConfig, DiTConfig
from fromnoise.models.crossdit import CrossDiT
from fromnoise.models.dit import DiT

CLASSES, WIDTH, TEXT = 5, 48, 20
SHAPE: Any = dict(
    num_attention_heads=3, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=3, patch_size=2
)


def random_weights(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.06)  # the usual start has zero gates, which would hide the blocks


def stock_dit() -> DiTTransformer2DModel:
    torch.manual_seed(0)
    model = DiTTransformer2DModel(**SHAPE, sample_size=8, num_embeds_ada_norm=CLASSES, norm_eps=1e-6)
    random_weights(model)
    blocks: Any = list(model.transformer_blocks)
    for block in blocks[1:]:  # one embedding of time and class serves all that were trained
        block.norm1.emb.load_state_dict(blocks[0].norm1.emb.state_dict())
    return model.eval()


def stock_pixart() -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    model = PixArtTransformer2DModel(**SHAPE, sample_size=8, cross_attention_dim=WIDTH, caption_channels=TEXT)
    random_weights(model)
    return model.eval()


def dit(cond_width: int = WIDTH) -> DiT:
    return DiT(DiTConfig(patch=2, width=WIDTH, depth=3, head_width=16), channels=4, cond_width=cond_width)


def crossdit() -> CrossDiT:
    return CrossDiT(CrossDiTConfig(patch=2, width=WIDTH, depth=3, head_width=16), channels=4, cond_width=TEXT)


def inputs(height: int = 8, width: int = 8) -> tuple[torch.Tensor, torch.Tensor, Cond]:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, height, width, generator=generator), torch.tensor([0.123, 0.9])
    tokens, mask = torch.randn(2, 6, TEXT, generator=generator), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    return x, t, Cond(tokens, mask, tokens.mean(1))


def test_dit_equals_the_stock_class() -> None:
    reference, model = stock_dit(), dit()
    table = model.import_state(reference.state_dict())
    assert table.shape == (CLASSES + 1, WIDTH)
    x, t, _ = inputs()
    labels = torch.tensor([3, CLASSES])  # the last row stands for no class
    said = table[labels]
    with torch.no_grad():
        answer = reference(x, 1000 * t, labels, return_dict=False)[0]
        y = model(x, t, Cond(said[:, None], torch.ones(2, 1, dtype=torch.bool), said))
    assert answer.abs().max() > 0.1
    torch.testing.assert_close(y, answer, atol=1e-5, rtol=1e-5)


def test_dit_export_is_read_by_the_stock_class_and_draws_the_same() -> None:
    reference, model = stock_dit(), dit(cond_width=12)
    random_weights(model)
    table = torch.randn(CLASSES + 1, 12, generator=torch.Generator().manual_seed(1))
    reference.load_state_dict(model.export_state(table), strict=True)
    x, t, _ = inputs()
    labels = torch.tensor([0, 4])
    with torch.no_grad():
        answer = reference(x, 1000 * t, labels, return_dict=False)[0]
        y = model(x, t, Cond(table[labels][:, None], torch.ones(2, 1, dtype=torch.bool), table[labels]))
    torch.testing.assert_close(y, answer, atol=1e-5, rtol=1e-5)


def test_dit_whose_blocks_embed_differently_is_refused() -> None:
    state = stock_dit().state_dict()
    state["transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"] += 1
    with pytest.raises(ValueError, match=r"differ in norm1\.emb\.timestep_embedder\.linear_1\.bias"):
        dit().import_state(state)


def test_crossdit_equals_the_stock_class() -> None:
    reference, model = stock_pixart(), crossdit()
    model.import_state(reference.state_dict())
    x, t, cond = inputs()
    with torch.no_grad():
        answer = reference(x, cond.tokens, 1000 * t, encoder_attention_mask=cond.mask, return_dict=False)[0]
        y = model(x, t, cond)
    assert answer.abs().max() > 0.1
    torch.testing.assert_close(y, answer, atol=1e-5, rtol=1e-5)
    again = crossdit()
    again.import_state(model.export_state())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    reference.load_state_dict(model.export_state(), strict=True)


@pytest.mark.parametrize("make", [dit, crossdit])
def test_a_missing_key_is_refused_by_name(make: Callable[[], Any]) -> None:
    state = (stock_dit() if make is dit else stock_pixart()).state_dict()
    del state["transformer_blocks.2.attn1.to_q.weight"]
    with pytest.raises(ValueError, match=r"attn1\.to_q\.weight"):
        make().import_state(state)


@pytest.mark.parametrize("make", [lambda: dit(TEXT), crossdit])
def test_starts_at_zero_and_trains_every_parameter_at_any_size(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = make()
    x, t, cond = inputs(6, 10)
    assert torch.equal(model(x, t, cond), torch.zeros_like(x))
    random_weights(model)
    y = model(x, t, cond)
    assert y.shape == x.shape
    y.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    with pytest.raises(ValueError, match="size 5x10 is not a multiple of the patch, 2"):
        model(x[:, :, 1:], t, cond)


def test_padding_is_ignored_and_words_are_not() -> None:
    model = crossdit()
    random_weights(model)
    x, t, cond = inputs()
    y = model(x, t, cond)
    other = Cond(torch.where(cond.mask[..., None], cond.tokens, 100.0), cond.mask, cond.vector)
    torch.testing.assert_close(model(x, t, other), y, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x, t, cond.padded(9)), y, atol=1e-5, rtol=0)
    assert (model(x, t, Cond(cond.tokens + 1, cond.mask, cond.vector)) - y).abs().max() > 1e-3


@pytest.mark.parametrize("make", [DiTConfig, CrossDiTConfig])
def test_a_width_that_heads_do_not_divide_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="backbone width 100 is not a multiple of head_width 64"):
        make(width=100, head_width=64).build(3, 16)
