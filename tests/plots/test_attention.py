"""Maps against what the networks really compute, against numbers by hand, and nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fromnoise.conditioning.config import TextConfig
from fromnoise.core.types import Cond
from fromnoise.nn.attention import Attention as Cross
from fromnoise.nn.attention import bias_of
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.attention import attended, crossing, figure, lookers, overlay, refusal, shares, watched, words_of
from fromnoise.plots.subject import Subject, Wish

PROMPT = "a picture of the digit seven"
LENGTH = 7  # tokens of the condition; no level of a small model has as many places
KINDS = ["mmdit", "crossdit", "unet"]
kinds = pytest.mark.parametrize("kind", KINDS)


class Spy(TorchFunctionMode):
    """Notes what every call of the fused attention is given: an independent witness."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k, _ = args
            mask = (kwargs or {}).get("attn_mask")
            scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / math.sqrt(q.shape[-1])
            self.calls.append((scores if mask is None else scores + mask).softmax(-1).mean(1))
        return func(*args, **(kwargs or {}))


def network(build: Callable[..., Pipeline], kind: str) -> tuple[nn.Module, tuple[Tensor, Tensor, Cond]]:
    """A backbone, and what to call it with: two pictures, the second with two of its tokens masked."""
    backbone = build(kind, "text").backbone
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, LENGTH, 8, generator=generator)
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[1, 5:] = False
    x = torch.randn(2, 1, 16, 16, generator=generator)
    return backbone, (x, torch.tensor([0.3, 0.8]), Cond(tokens, mask, tokens.mean(1)))


@kinds
def test_maps_are_what_the_network_computes(build: Callable[..., Pipeline], kind: str) -> None:
    backbone, inputs = network(build, kind)
    with torch.no_grad(), watched(backbone) as seen, Spy() as spy:
        backbone(*inputs)
    if kind == "mmdit":  # places stand after the text; the last block's text asks nothing
        expected = [call[:, -16:, :LENGTH] for call in spy.calls]
    else:
        expected = [call for call in spy.calls if call.shape[-1] == LENGTH]
    assert len(seen) == len(expected) == len({id(module) for module, _, _ in lookers(backbone)})
    for mine, theirs in zip(seen, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
        assert mine.std() > 1e-3
        assert mine[1, :, 5:].max() < 1e-6  # padding is not looked at


@kinds
def test_shares_of_all_words_make_1_or_leave_some_to_the_picture(build: Callable[..., Pipeline], kind: str) -> None:
    backbone, inputs = network(build, kind)
    with torch.no_grad(), watched(backbone) as seen:
        backbone(*inputs)
    for one in seen:
        total = one.sum(-1)
        assert one.min() >= 0
        assert bool((total < 1).all()) if kind == "mmdit" else torch.allclose(total, torch.ones_like(total))


@kinds
def test_watching_changes_nothing_and_leaves_nothing(build: Callable[..., Pipeline], kind: str) -> None:
    backbone, inputs = network(build, kind)
    before = {name: set(vars(module)) for name, module in backbone.named_modules()}
    with torch.no_grad():
        plain = backbone(*inputs)
        with watched(backbone):
            assert torch.equal(backbone(*inputs), plain)
        with pytest.raises(ZeroDivisionError), watched(backbone):
            _ = 1 / 0
        assert torch.equal(backbone(*inputs), plain)
    assert {name: set(vars(module)) for name, module in backbone.named_modules()} == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())


def test_two_places_and_two_words_by_hand() -> None:
    attn = Cross(2, 2, 2)
    with torch.no_grad():
        for layer in (attn.to_q, attn.to_k):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # two places
    words = torch.tensor([[[math.sqrt(2) * math.log(3), 0.0], [0.0, 0.0]]])  # scores ln 3 and 0; 0 and 0
    assert crossing(attn)(x, words)[0].tolist() == [pytest.approx([0.75, 0.25]), pytest.approx([0.5, 0.5])]
    masked = bias_of(torch.tensor([[True, False]]))
    assert crossing(attn)(x, words, masked)[0].tolist() == [pytest.approx([1, 0]), pytest.approx([1, 0])]


def test_heads_are_averaged() -> None:
    q = torch.tensor([[[[1.0]], [[0.0]]]])  # two heads of one place
    k = torch.tensor([[[[math.log(3)], [0.0]], [[5.0], [7.0]]]])
    assert shares(q, k, None)[0].tolist() == [pytest.approx([0.625, 0.375])]


def test_words_are_as_written_and_tokens_know_theirs(build: Callable[..., Pipeline]) -> None:
    conditioner = build("mmdit", "text").conditioner
    words, of = words_of(conditioner, "A  handwritten Seven, xyzw")
    assert words == ["A", "handwritten", "Seven", ",", "xyzw"]
    assert of[:5] == [-1, 0, 1, 2, 3] and of[5:] == [4] * (len(of) - 5) and len(of) > 6


def test_words_that_are_cut_are_not_shown(build: Callable[..., Pipeline]) -> None:
    tiny = TextConfig(vocabulary=400, length=4, width=8, depth=0, heads=1).build(["a handwritten seven"] * 3)
    assert words_of(tiny, "a handwritten seven seven seven") == (["a", "handwritten", "seven"], [-1, 0, 1, 2])


@kinds
def test_attended_sums_tokens_by_word_and_averages_blocks(build: Callable[..., Pipeline], kind: str) -> None:
    pipeline = build(kind, "text")
    found = attended(pipeline, PROMPT, seed=2, steps=3)
    side = 4 if kind != "unet" else 16
    assert found.words == PROMPT.split()
    assert found.maps.shape == (3, 6, side, side) and len(found.expected) == len(found.times) == 3
    assert bool((found.maps.sum(1) < 1).all()) and found.maps.min() >= 0
    (picture,) = pipeline(PROMPT, steps=3, seed=2, precision="float32")
    assert np.array_equal(np.asarray(found.picture), np.asarray(picture))
    if kind == "mmdit":  # the first step by hand: the noise, the prompt's condition, the mean of both blocks
        x = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(2))[None]
        x = pipeline.config.path(torch.ones(1)).sigma * x
        cond = pipeline.conditioner(pipeline.conditioner.encode([PROMPT], torch.tensor([0])))
        with torch.no_grad(), Spy() as spy:
            pipeline.backbone(x, torch.ones(1), cond)
        mean = torch.stack([call[0, -16:] for call in spy.calls]).mean(0)
        _, of = words_of(pipeline.conditioner, PROMPT)
        for word in range(6):
            tokens = [i for i, o in enumerate(of) if o == word]
            assert torch.allclose(found.maps[0, word].flatten(), mean[:, tokens].sum(1), atol=1e-4)


def test_compiled_blocks_are_watched_too(build: Callable[..., Pipeline]) -> None:
    pipeline = build("mmdit", "text")
    plain = attended(pipeline, PROMPT, steps=1)
    for block in pipeline.backbone.blocks():
        block.compile(backend="eager", dynamic=False)
    before = [block._compiled_call_impl for block in pipeline.backbone.blocks()]
    compiled = attended(pipeline, PROMPT, steps=1)
    assert [block._compiled_call_impl for block in pipeline.backbone.blocks()] == before and all(before)
    assert torch.allclose(compiled.maps, plain.maps, atol=1e-5)


def test_the_figure_has_a_column_for_each_word(build: Callable[..., Pipeline]) -> None:
    drawn = figure(build("crossdit", "text"), PROMPT, steps=2)
    assert len(drawn.axes) == 3 * 7  # all steps, and two parts
    assert [axes.get_title(loc="center") for axes in drawn.axes[:7]] == ["picture", *PROMPT.split()]
    assert all(len(axes.images) == 1 for axes in drawn.axes)


def test_an_overlay_is_light_where_a_place_looks() -> None:
    picture, one = Image.new("RGB", (16, 8), "white"), torch.zeros(2, 4)
    one[1, 3] = 0.5
    laid = overlay(picture, one, 0.5)
    assert laid.size == (256, 128) and laid.mode == "RGB"
    light = np.asarray(laid.convert("L"), dtype=float)
    assert light[100:, 230:].min() > light[:, :150].max() + 40
    assert light[:, :150].std() < 1


def test_what_does_not_look_at_words_is_refused(subject: Callable[..., Subject]) -> None:
    assert "given one vector" in refusal(subject("dit", "text"), Wish())
    assert "given one vector" in refusal(subject("cnn", "text"), Wish())
    assert "reads no words" in refusal(subject("mmdit", "label"), Wish())
    assert all(refusal(subject(kind, "text"), Wish()) == "" for kind in KINDS)
