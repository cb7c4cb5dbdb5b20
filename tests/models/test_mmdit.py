"""The backbone against diffusers' own class: same weights, same output."""

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed

from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.models.mmdit import MMDiT
from fromnoise.nn.embed import grid_features
from fromnoise.nn.patch import pack, unpack
from fromnoise.nn.position import turns_of


def stock() -> QwenImageTransformer2DModel:
    torch.manual_seed(0)
    model = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=40,
        axes_dims_rope=(0, 16, 16),
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # the stock start has zero gates, which would hide the blocks
    return model.eval()


def ours() -> MMDiT:
    return MMDiT(MMDiTConfig(patch=2, width=128, depth=3, head_width=32), channels=4, cond_width=40)


def inputs(h: int, w: int, length: int = 7) -> tuple[torch.Tensor, torch.Tensor, Cond]:
    generator = torch.Generator().manual_seed(h * 31 + w)
    x = torch.randn(2, 4, 2 * h, 2 * w, generator=generator)
    tokens = torch.randn(2, length, 40, generator=generator)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, 4:] = False
    return x, torch.rand(2, generator=generator), Cond(tokens, mask, tokens.mean(1))


@pytest.mark.parametrize(("h", "w"), [(4, 4), (5, 3), (2, 8), (1, 1), (16, 6)])
def test_equals_the_stock_class_on_any_grid(h: int, w: int) -> None:
    reference, model = stock(), ours()
    model.import_state(reference.state_dict())
    x, t, cond = inputs(h, w)
    with torch.no_grad():
        answer = reference(pack(x, 2), cond.tokens, cond.mask, t, [[(1, h, w)]] * 2, return_dict=False)[0]
        y = model(x, t, cond)
    assert answer.abs().max() > 0.1
    torch.testing.assert_close(y, unpack(answer, h, w, 2), atol=1e-5, rtol=0)


def test_export_is_read_by_the_stock_class_and_draws_the_same() -> None:
    model, reference = ours(), stock()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    reference.load_state_dict(model.export_state(), strict=True)
    x, t, cond = inputs(3, 4)
    with torch.no_grad():
        answer = reference(pack(x, 2), cond.tokens, cond.mask, t, [[(1, 3, 4)]] * 2, return_dict=False)[0]
        torch.testing.assert_close(model(x, t, cond), unpack(answer, 3, 4, 2), atol=1e-5, rtol=0)


def test_import_undoes_export() -> None:
    model, again = ours(), ours()
    again.import_state(model.export_state())
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize(
    "key", ["img_in.weight", "transformer_blocks.2.attn.to_q.weight", "transformer_blocks.1.txt_mlp.net.2.bias"]
)
def test_a_missing_key_is_refused_by_name(key: str) -> None:
    state = stock().state_dict()
    del state[key]
    with pytest.raises(ValueError, match=key):
        ours().import_state(state)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = ours()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, t, cond = inputs(4, 4)
    model(x, t, cond).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_pooled_text_speaks_to_every_block_and_cannot_be_exported() -> None:
    model = MMDiT(MMDiTConfig(patch=2, width=128, depth=2, head_width=32, pooled=True), channels=4, cond_width=40)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, t, cond = inputs(4, 4)
    y = model(x, t, cond)
    other = model(x, t, Cond(cond.tokens, cond.mask, cond.vector + 1))
    assert (y - other).abs().max() > 1e-3
    y.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ValueError, match="pooled"):
        model.export_state()


def test_shared_modulation_is_own_ones_that_are_alike_but_for_their_biases_and_cannot_be_exported() -> None:
    config = MMDiTConfig(patch=2, width=128, depth=3, head_width=32)
    own = MMDiT(config, channels=4, cond_width=40)
    shared = MMDiT(config.model_copy(update={"modulation": "shared"}), channels=4, cond_width=40)
    for parameter in shared.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    state = shared.state_dict()
    weight, bias = state.pop("modulation.1.weight"), state.pop("modulation.1.bias")
    for i in range(config.depth):
        for kind, first, count in (("img_mod", 0, 6), ("txt_mod", 6, 6 if i < 2 else 2)):
            part, name = slice(first * 128, (first + count) * 128), f"transformer_blocks.{i}.{kind}"
            state |= {f"{name}.1.weight": weight[part], f"{name}.1.bias": bias[part] + state.pop(f"{name}.bias")}
    own.load_state_dict(state)
    x, t, cond = inputs(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(shared(x, t, cond), own(x, t, cond))
    shared(x, t, cond).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in shared.parameters())
    with pytest.raises(ValueError, match="modulation is shared"):
        shared.export_state()


def test_absolute_places_are_those_of_diffusers_and_cannot_be_exported() -> None:
    torch.testing.assert_close(
        grid_features(torch.arange(4), torch.arange(4), 24),
        get_2d_sincos_pos_embed(24, 4, base_size=4, output_type="pt"),
        check_dtype=False,
    )
    torch.testing.assert_close(
        grid_features(torch.arange(2), torch.arange(4), 24), grid_features(torch.arange(4), torch.arange(4), 24)[:8]
    )
    for absolute in ("none", "sincos", "learned", "cropped"):
        torch.manual_seed(0)
        config = MMDiTConfig(patch=2, width=128, depth=2, head_width=32, absolute=absolute, grid=4)
        model = MMDiT(config, channels=4, cond_width=40)
        torch.nn.init.normal_(model.proj_out.weight)  # all gates are still shut: only a patch itself speaks
        x, t, cond = inputs(4, 4)
        patches = pack(model(torch.zeros_like(x), t, cond), 2)
        assert len({tuple(row) for row in patches[0].tolist()}) == (1 if absolute == "none" else 16)
    with pytest.raises(ValueError, match="absolute"):
        model.export_state()


def test_other_frequencies_than_the_stock_classes_cannot_be_exported() -> None:
    model = MMDiT(MMDiTConfig(patch=2, width=64, depth=1, head_width=32, rope_theta=1000.0), channels=4, cond_width=40)
    with pytest.raises(ValueError, match="rope_theta is 1000"):
        model.export_state()


def test_starts_at_zero_and_ignores_padding() -> None:
    torch.manual_seed(0)
    model = ours()
    x, t, cond = inputs(4, 4)
    assert torch.equal(model(x, t, cond), torch.zeros_like(x))
    model.import_state(stock().state_dict())
    other = Cond(torch.where(cond.mask[..., None], cond.tokens, 100.0), cond.mask, cond.vector)
    torch.testing.assert_close(model(x, t, other), model(x, t, cond), atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x, t, cond.padded(12)), model(x, t, cond), atol=1e-5, rtol=0)


def test_text_positions_stand_clear_of_every_grid() -> None:
    for h, w in ((4, 4), (6, 2), (3, 9)):
        text, image = turns_of("msrope", h, w, 5, 8, 16, 10000.0, torch.device("cpu"))
        assert text and image
        assert text[0].shape == (5, 1, 8) and image[0].shape == (h * w, 1, 8)
        places = torch.cat([torch.cat((cos, sin), 1).flatten(1) for cos, sin in (text, image)])  # (L + N, 24)
        assert len({tuple(row) for row in places.round(decimals=5).tolist()}) == 5 + h * w


def test_a_model_that_drew_under_inference_mode_can_be_trained() -> None:
    turns_of.cache_clear()
    model = ours()
    model.import_state(stock().state_dict())
    x, t, cond = inputs(4, 4)
    with torch.inference_mode():
        model(x, t, cond)
    model(x, t, cond).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of head_width 64"):
        MMDiT(MMDiTConfig(width=100, head_width=64), 3, 16)
    x, t, cond = inputs(4, 4)
    with pytest.raises(ValueError, match="size 7x8 is not a multiple of the patch, 2"):
        ours()(x[:, :, :7], t, cond)


def test_autocast_stays_close() -> None:
    model = ours()
    model.import_state(stock().state_dict())
    x, t, cond = inputs(4, 4)
    with torch.no_grad():
        full = model(x, t, cond)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x, t, cond)
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_the_258m_model_is_diffusers_less_what_nothing_reads() -> None:
    shape = MMDiTConfig(patch=2, width=768, depth=12, head_width=64)
    with torch.device("meta"):
        model = shape.build(channels=4, cond_width=768)
        reference = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=12,
            attention_head_dim=64,
            num_attention_heads=12,
            joint_attention_dim=768,
            axes_dims_rope=(0, 32, 32),
        )
    assert sum(p.numel() for p in reference.parameters()) == 257_669_392
    feed_forward_and_output = 2 * 768 * 3072 + 3072 + 768 + 768 * 768 + 768
    assert feed_forward_and_output == 5_313_024
    queries_and_modulation = 768 * 768 + 768 + 64 + 4 * (768 * 768 + 768)
    left_out = feed_forward_and_output + queries_and_modulation
    assert sum(p.numel() for p in model.parameters()) == 257_669_392 - left_out == 249_403_344
