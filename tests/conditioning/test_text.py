"""The trained text encoder: what it reads, what it ignores, and that every weight learns."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.decoders import ByteLevel
from torch._dynamo.testing import CompileCounter

from fromnoise.conditioning.config import TextConfig
from fromnoise.conditioning.text import START, Layer, TextConditioner, learn_bpe
from fromnoise.core.types import Cond

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "star")
CAPTIONS = [
    f"a {a} {s} {side} a {b} {u}"
    for a in COLOURS
    for b in COLOURS
    for s in SHAPES
    for u in SHAPES
    for side in ("left of", "above")
] + ["", "a small red circle"]
CONFIG = TextConfig(vocabulary=400, length=16, width=32, depth=2, heads=4)
NO_LABELS = torch.zeros(0, dtype=torch.int64)


def make(config: TextConfig = CONFIG) -> TextConditioner:
    torch.manual_seed(0)
    return TextConditioner.learn(config, CAPTIONS)


def read(conditioner: TextConditioner, *captions: str) -> Cond:
    return conditioner(conditioner.encode(captions, NO_LABELS))


def assert_same(a: Cond, b: Cond) -> None:
    for name in ("tokens", "mask", "vector"):
        assert torch.equal(getattr(a, name), getattr(b, name))


class TestTokens:
    def test_learning_depends_on_the_captions_and_not_on_their_order(self):
        shuffled = random.Random(0).sample(CAPTIONS, len(CAPTIONS))
        assert learn_bpe(CAPTIONS, 400).to_str() == learn_bpe(shuffled, 400).to_str()
        assert make().state == TextConditioner.learn(CONFIG, iter(shuffled)).state

    def test_a_common_word_is_one_token_wherever_it_stands(self):
        tokens = make().tokenizer.encode("Red circle above a red circle").tokens
        assert tokens == ["<start>", "Ġred", "Ġcircle", "Ġabove", "Ġa", "Ġred", "Ġcircle"]

    def test_the_vocabulary_is_no_larger_than_asked(self):
        assert learn_bpe(CAPTIONS, 262).get_vocab_size() == 262
        assert learn_bpe(CAPTIONS, 4000).get_vocab_size() < 320  # no merges are left
        assert learn_bpe([], 400).get_vocab_size() == 258  # the bytes, pad and start

    @pytest.mark.parametrize("same", ["A  Red circle", " a red\tcircle\n", "a red circle", "a ｒｅｄ circle"])
    def test_case_and_white_space_do_not_matter(self, same):
        conditioner = make()
        assert_same(read(conditioner, same), read(conditioner, "a red circle"))

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
    def test_any_text_can_be_read_and_none_is_lost(self, text):
        normal = TOKENIZER.normalizer.normalize_str(text)
        assert ByteLevel().decode(TOKENIZER.encode(text).tokens[1:]).removeprefix(" ") == normal.removeprefix(" ")

    def test_a_prompt_that_spells_a_special_token_is_text(self):
        conditioner = make()
        restored = TextConditioner.restore(CONFIG, conditioner.state)
        for one in (conditioner, restored):
            ids = one.encode(["<pad><start>", "<pad>"], NO_LABELS)["ids"]
            assert (ids == START).sum(1).tolist() == [1, 1]
            assert (ids[:, 1:6] >= 2).all()


TOKENIZER = make().tokenizer


class TestLength:
    def test_it_is_that_of_the_longest_caption_rounded_up(self):
        assert max(make().lengths(CAPTIONS)) == 9  # start, a red circle left of a blue star
        assert make().length == 12
        assert make(TextConfig(length=10, width=32, heads=4)).length == 10
        assert TextConditioner.learn(CONFIG, [""]).length == 4

    def test_features_are_as_wide_whatever_is_said(self):
        conditioner = make()
        for captions in ([""], ["a red star"], CAPTIONS[:7]):
            features = conditioner.encode(captions, NO_LABELS)
            assert features["ids"].shape == features["mask"].shape == (len(captions), 12)
            assert features["ids"].dtype == torch.int64 and features["mask"].dtype == torch.bool
            assert features["mask"].sum(1).tolist() == conditioner.lengths(captions)
        assert conditioner.null(3).tokens.shape == (3, 12, 32)

    def test_a_longer_prompt_is_read_up_to_the_limit(self):
        conditioner = make()
        prompt = " ".join(["red"] * 13)
        mask = conditioner.encode([prompt, ""], NO_LABELS)["mask"]
        assert mask.sum(1).tolist() == [14, 1] and mask.shape[1] == 16  # a compiled model meets two widths at most
        assert conditioner.cut([prompt]) == 0 and conditioner.notice([prompt]) == ""
        # The 14th token counts: the prompt is read to its end.
        other = read(conditioner, " ".join(["red"] * 12 + ["blue"]))
        assert (read(conditioner, prompt).vector - other.vector).abs().max() > 1e-3

    def test_beyond_the_limit_is_cut_and_said(self):
        conditioner = make()
        prompt = " ".join(["red"] * 31)
        assert conditioner.encode([prompt], NO_LABELS)["mask"].sum().item() == 16
        assert_same(read(conditioner, prompt), read(conditioner, prompt + " blue"))
        assert conditioner.cut(["", prompt, "a red star", ""]) == 0.25
        notice = conditioner.notice(["", prompt])
        assert notice.startswith("1 of 2 texts longer than the 16 tokens") and "loses 50% ('red red" in notice
        assert "\n" not in conditioner.notice(["red\n" * 40])


class TestEncoder:
    def test_a_caption_reads_the_same_beside_others_and_however_far_padded(self):
        conditioner = make()
        caption, longer = "a red circle above a blue star", " ".join(["green"] * 14)
        alone = read(conditioner, caption)
        for others in (["", "a star"], [longer]):
            beside = read(conditioner, caption, *others)
            torch.testing.assert_close(beside.tokens[0, :12], alone.tokens[0], atol=2e-6, rtol=0)
            torch.testing.assert_close(beside.vector[0], alone.vector[0], atol=2e-6, rtol=0)
            assert not beside.tokens[~beside.mask].any()

    def test_vector_is_the_mean_of_the_real_tokens(self):
        cond = read(make(), "a red star", "")
        torch.testing.assert_close(cond.vector[0], cond.tokens[0, :4].mean(0))
        torch.testing.assert_close(cond.vector[1], cond.tokens[1, 0])

    def test_the_order_of_words_is_read(self):
        cond = read(make(), "a red circle above a blue star", "a blue star above a red circle")
        assert (cond.vector[0] - cond.vector[1]).abs().max() > 1e-3

    def test_nothing_said_is_one_token_and_differs_from_an_empty_caption(self):
        conditioner = make()
        null = conditioner.null(2)
        assert null.mask.sum(1).tolist() == [1, 1] and not null.tokens[~null.mask].any()
        assert torch.equal(null.tokens[:, 0], null.vector)
        assert (null.vector[0] - read(conditioner, "").vector[0]).abs().max() > 0.1

    @pytest.mark.parametrize("depth", [0, 2])
    def test_gradient_reaches_every_parameter(self, depth):
        conditioner = make(CONFIG.model_copy(update={"depth": depth}))
        cond = read(conditioner, *CAPTIONS[:4])
        cond = cond.where(torch.tensor([True, False, True, True]), conditioner.null(4))
        weight = torch.randn(cond.tokens.shape, generator=torch.Generator().manual_seed(1))
        ((cond.tokens * weight).sum() + (cond.vector * weight[:, 0]).sum()).backward()
        for name, parameter in conditioner.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-4, name
        assert conditioner.position.grad is not None
        assert (conditioner.position.grad.abs().sum(1) > 0).sum() == 9

    def test_half_precision_stays_close(self):
        conditioner = make()
        whole = read(conditioner, *CAPTIONS[:8], "")
        with torch.autocast("cpu", torch.bfloat16):
            half = read(conditioner, *CAPTIONS[:8], "")
        assert (half.tokens - whole.tokens).abs().max() < 0.05
        assert (half.tokens - whole.tokens).abs().max() > 0

    def test_one_graph_without_breaks_serves_every_batch(self):
        conditioner, counter = make(), CompileCounter()

        @torch.compile(backend=counter, fullgraph=True)
        def step(features: dict[str, torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
            return conditioner(features).where(keep, conditioner.null(2)).vector

        keep = torch.tensor([True, False])
        for captions in (["a red star", ""], ["a blue circle left of a green square", "red"], CAPTIONS[-2:]):
            step(conditioner.encode(captions, NO_LABELS), keep)
        assert counter.frame_count == 1

    def test_restore(self):
        conditioner = make()
        again = TextConditioner.restore(CONFIG, conditioner.state)
        again.load_state_dict(conditioner.state_dict())
        assert again.state == conditioner.state
        assert_same(read(again, "a red star", "Über 9"), read(conditioner, "a red star", "Über 9"))
        assert_same(again.null(1), conditioner.null(1))

    def test_heads_that_do_not_divide_the_width_are_refused(self):
        with pytest.raises(ValueError, match="heads 5 does not divide the text encoder's width 32"):
            make(CONFIG.model_copy(update={"heads": 5}))


def test_what_comes_out_of_a_layer_starts_with_the_scale_of_what_goes_in():
    torch.manual_seed(0)
    conditioner = TextConditioner.learn(TextConfig(width=128, depth=2, heads=4), CAPTIONS)
    for layer in conditioner.layers:
        assert isinstance(layer, Layer)
        x = torch.randn(512, 128)
        out = layer.down(torch.randn(512, 512))
        scales = [layer.qkv(x).std(), layer.out(x).std(), layer.up(x).std(), out.std()]
        assert torch.stack(scales).tolist() == pytest.approx([1] * 4, rel=0.1)
        assert layer.out.bias.abs().max() == layer.up.bias.abs().max() == layer.down.bias.abs().max() == 0
    for parameter in (conditioner.embedding.weight, conditioner.position, conditioner.nothing):
        assert parameter.std().item() == pytest.approx(1, rel=0.2)
