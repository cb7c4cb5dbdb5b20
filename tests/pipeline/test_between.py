"""Between two prompts and two seeds: the ends are ordinary pictures, and noise on the way is noise."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from fromnoise.conditioning.config import ConditionerConfig, LabelConfig, NoConditionConfig, TextConfig
from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.between import lerp, slerp
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from tests.conftest import stirred

CAPTIONS = ["a red circle", "a small blue square above a large green star", "two yellow rings", ""]


def build(conditioner: ConditionerConfig) -> Pipeline:
    """A tiny pipeline in which everything matters."""
    sampling = Sampling(sampler="ddim", eta=1.0, steps=3, guidance=2)
    backbone = MMDiTConfig(width=32, depth=1, head_width=16, pooled=True)
    config = ModelConfig(backbone=backbone, conditioner=conditioner, sampling=sampling, size=16)
    return stirred(Pipeline.build(config, CAPTIONS, 0).eval(), 0.2)


KINDS = {
    "text": (TextConfig(width=32, depth=1, heads=2, vocabulary=300), ("a red circle", CAPTIONS[1])),
    "label": (LabelConfig(classes=10, width=32), ("3", "7")),
    "none": (NoConditionConfig(width=32), ("", "")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_what_is_drawn_of_them(kind: str) -> None:
    conditioner, prompts = KINDS[kind]
    pipeline = build(conditioner)
    steps = pipeline.between(prompts, (5, 9), 4, precision="float32")
    way = deque(steps, maxlen=1).pop().x
    assert way.shape == (4, 3, 16, 16)
    for place, prompt, seed in ((0, prompts[0], 5), (-1, prompts[1], 9)):
        alone = deque(pipeline.stream(prompt, seed=seed, precision="float32"), maxlen=1).pop().x[0]
        assert torch.allclose(way[place], alone, atol=2e-4)
    apart = [(a - b).abs().mean() for a, b in ((way[0], way[1]), (way[1], way[2]), (way[2], way[3]))]
    assert all(0 < one < (way[0] - way[3]).abs().mean() for one in apart)


def test_one_seed_and_one_prompt_are_one_picture() -> None:
    pipeline = build(KINDS["text"][0])
    way = deque(pipeline.between(("a red circle", "a red circle"), (5, 5), 3), maxlen=1).pop().x
    assert torch.allclose(way[0], way[1], atol=1e-4) and torch.allclose(way[0], way[2], atol=1e-4)


def test_noise_on_the_way_is_as_strong_as_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 64, 64, generator=generator)
    way = slerp(a, b, torch.linspace(0, 1, 5))
    assert torch.equal(way[0], a) and torch.allclose(way[-1], b, atol=1e-6)
    assert torch.allclose(way.flatten(1).std(1), torch.ones(5), atol=0.03)
    assert torch.equal(slerp(a, a, torch.tensor([0.3]))[0], a)


def test_on_the_way_to_a_longer_text_its_tokens_begin_as_the_mean() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [0.0]], [[5.0], [6.0], [8.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    mixed = lerp(Cond(tokens, mask, torch.tensor([[2.0], [4.0]])), torch.tensor([0.0, 0.5, 1.0]))
    assert mixed.mask.tolist() == [[True, True, False], [True] * 3, [True] * 3]
    assert mixed.tokens[..., 0].tolist() == [[1, 3, 0], [3, 4.5, 5], [5, 6, 8]]
    assert mixed.vector[:, 0].tolist() == [2, 3, 4]


@pytest.mark.parametrize(("count", "words"), [(1, "count is 1; allowed: 2 to 64"), (65, "count is 65")])
def test_a_way_of_too_few_or_too_many_is_refused(count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(KINDS["none"][0]).between(("", ""), (0, 1), count)


def test_a_way_has_two_ends() -> None:
    with pytest.raises(ValueError, match="3 prompts and 2 seeds are given; allowed: 2 of each, both ends"):
        build(KINDS["none"][0]).between(("", "", ""), (0, 1), 4)  # type: ignore[arg-type]
