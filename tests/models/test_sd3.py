"""SD3's variant of the MMDiT against diffusers' own class: same weights, same output."""

import pytest
import torch
from diffusers import SD3Transformer2DModel

from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.models.mmdit import MMDiT
from fromnoise.models.sd3 import export_sd3, import_sd3

CONFIG = MMDiTConfig(
    patch=2,
    width=64,
    depth=3,
    head_width=16,
    pooled=True,
    rotation="none",
    absolute="cropped",
    grid=4,
    largest=12,
    text_norm=False,
)


def stock() -> SD3Transformer2DModel:
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=24,
        caption_projection_dim=64,
        pooled_projection_dim=24,
        pos_embed_max_size=12,
        qk_norm="rms_norm",
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def inputs(h: int, w: int) -> tuple[torch.Tensor, torch.Tensor, Cond]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 5, 24, generator=generator)
    x = torch.randn(2, 4, 2 * h, 2 * w, generator=generator)
    vector = torch.randn(2, 24, generator=generator)
    return x, torch.tensor([0.2, 0.77]), Cond(tokens, torch.ones(2, 5, dtype=torch.bool), vector)


@pytest.mark.parametrize(("h", "w"), [(4, 4), (6, 3), (12, 1)])
def test_equals_the_stock_class(h: int, w: int) -> None:
    reference, model = stock(), MMDiT(CONFIG, 4, 24)
    import_sd3(model, reference.state_dict())
    x, t, cond = inputs(h, w)
    with torch.no_grad():
        answer = reference(x, cond.tokens, cond.vector, 1000 * t, return_dict=False)[0]
        y = model(x, t, cond)
    assert answer.abs().max() > 0.1
    torch.testing.assert_close(y, answer, atol=1e-5, rtol=1e-5)


def test_export_is_read_by_the_stock_class_and_draws_the_same() -> None:
    reference, model = stock(), MMDiT(CONFIG, 4, 24)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    reference.load_state_dict(export_sd3(model), strict=True)
    x, t, cond = inputs(4, 5)
    with torch.no_grad():
        answer = reference(x, cond.tokens, cond.vector, 1000 * t, return_dict=False)[0]
        torch.testing.assert_close(model(x, t, cond), answer, atol=1e-5, rtol=1e-5)
    model(x, t, cond).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_another_model_and_a_missing_key_are_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.pooled is False; diffusers' SD3 has True"):
        export_sd3(MMDiT(MMDiTConfig(width=64, depth=2), 4, 24))
    state = stock().state_dict()
    del state["transformer_blocks.1.ff_context.net.2.bias"]
    with pytest.raises(ValueError, match=r"transformer_blocks\.1\.txt_mlp\.net\.2\.bias"):
        import_sd3(MMDiT(CONFIG, 4, 24), state)
    with pytest.raises(ValueError, match=r"13x4 patches are more than backbone\.largest, 12"):
        MMDiT(CONFIG, 4, 24)(*inputs(13, 4))
