"""Activations that are computed again in the backward: the same losses and gradients, and much less held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Cond
from fromnoise.models.config import BackboneConfig, CNNConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.training import drawing, loop, reconstruction
from fromnoise.training.drawing import Drawing
from fromnoise.training.fast import Choices
from fromnoise.training.loop import train, train_vae
from fromnoise.training.run import Run, VAERun
from fromnoise.training.step import accumulate_gradients

BACKBONES: dict[str, BackboneConfig] = {
    "cnn": CNNConfig(width=16),
    "unet": UNetConfig(width=8, multipliers=(1, 2), layers=1, attention=(1,), heads=2, groups=4),
    "dit": DiTConfig(patch=2, width=16, depth=3, head_width=8),
    "crossdit": CrossDiTConfig(patch=2, width=16, depth=3, head_width=8),
    "mmdit": MMDiTConfig(patch=2, width=16, depth=3, head_width=8),
    "mmdit, shared": MMDiTConfig(patch=2, width=16, depth=3, head_width=8, modulation="shared", pooled=True),
}
Told = tuple[torch.Tensor, dict[str, torch.Tensor]]


def stirred(model: Any) -> Any:
    """`model` with no weight at zero, so that every part of it matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def learned(model: Any, loss: Callable[[], torch.Tensor]) -> Told:
    """The loss, and the gradients of all parameters."""
    model.zero_grad()
    told = loss()
    told.backward()
    return told.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def loss_of(backbone: Any, dtype: torch.dtype | None) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, tokens = torch.randn(2, 3, 16, 16, generator=generator), torch.randn(2, 5, 16, generator=generator)
    cond = Cond(tokens, torch.arange(5) < torch.tensor([[5], [3]]), tokens.mean(1))
    t = torch.tensor([0.2, 0.7])

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            return backbone(x, t, cond).float().square().mean()  # ()

    return loss


def count_calls(blocks: list[nn.Module]) -> list[int]:
    """A list that grows with every forward of one of `blocks`, whoever asks for it."""
    calls: list[int] = []
    for block in blocks:
        inside = next(part for part in block.modules() if not list(part.children()))
        inside.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", BACKBONES)
def test_losses_and_gradients_are_the_same_to_the_bit(name: str, dtype: torch.dtype | None) -> None:
    backbone: Any = stirred(BACKBONES[name].build(3, 16))
    loss = loss_of(backbone, dtype)
    plain, grads = learned(backbone, loss)
    calls = count_calls(backbone.blocks())
    recompute(backbone.blocks(), True)
    again, others = learned(backbone, loss)
    assert len(calls) == 2 * len(backbone.blocks())
    assert again.equal(plain) and plain > 0
    assert others.keys() == grads.keys() and all(others[key].equal(grads[key]) for key in grads)
    with torch.no_grad():
        assert loss().equal(plain)
    recompute(backbone.blocks(), False)
    calls.clear()
    learned(backbone, loss)
    assert len(calls) == len(backbone.blocks())


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_compiled_blocks_share_their_code_and_learn_the_same() -> None:
    backbone: Any = stirred(BACKBONES["mmdit, shared"].build(3, 16))
    loss = loss_of(backbone, None)
    plain, grads = learned(backbone, loss)
    recompute(backbone.blocks(), True)
    torch.compiler.reset()
    counters.clear()
    for block in backbone.blocks():
        block.compile(dynamic=False, backend="aot_eager")  # as `compiled` does, but for the C++ that takes a minute
    again, others = learned(backbone, loss)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]  # a block, and the last one
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=0)
    for key, grad in grads.items():
        assert (others[key] - grad).norm() <= 1e-4 * grad.norm(), key


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_a_vae_learns_the_same_to_the_bit(tiny_vae_run: Callable[..., VAERun], adversarial: float) -> None:
    config = tiny_vae_run().model
    judged = {"adversarial": adversarial, "discriminator_width": 8, "discriminator_layers": 1, "adversarial_start": 0}
    config = config.model_copy(update={"loss": config.loss.model_copy(update=judged)})
    model = stirred(Autoencoder.build(config, 0))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 16, 16, generator=generator)
    eps = torch.randn(2, *model.latent_shape(16, 16), generator=generator)
    plain, grads = learned(model, lambda: model.loss(images, eps, 0).mean())
    recompute(model.blocks(), True)
    again, others = learned(model, lambda: model.loss(images, eps, 0).mean())
    assert again.equal(plain) and all(others[key].equal(grads[key]) for key in grads)


def test_a_training_goes_on_with_it_to_the_same_bits(
    tiny_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "CAPTIONS", 300)
    seen: list[bool] = []
    inside = loop.recompute
    monkeypatch.setattr(loop, "recompute", lambda blocks, wanted: seen.append(wanted) or inside(blocks, wanted))
    told = [train(tiny_run(recompute=wanted), tmp_path / str(wanted)).state_dict() for wanted in (False, True)]
    assert seen == [False, True]
    assert all(told[0][key].equal(told[1][key]) for key in told[0])
    last = max((tmp_path / "True" / "checkpoints").iterdir())
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    again = train(tiny_run(recompute=False), tmp_path / "True").state_dict()
    assert seen[-1] is False and all(told[0][key].equal(again[key]) for key in again)


def test_what_is_computed_again_does_not_count_as_work(
    tiny_run: Callable[..., Run], shapes: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "peak_flops", lambda device: 1e12)
    choices = Choices(device="cpu", batch=4, precision="float32", compile=False)
    told = []
    for again in (False, True):
        trainee = Drawing(tiny_run(recompute=again), shapes, print)
        recompute(pipeline.blocks(), again)
        told.append(loop.measure(trainee, pipeline, choices).flops)
        assert all(("forward" in vars(block)) == again for block in pipeline.blocks())
    recompute(pipeline.blocks(), False)
    with FlopCounterMode(display=False) as counter:
        accumulate_gradients(pipeline, trainee.draw(pipeline, 0, 4), 1, None)
    assert told[0] == told[1] == counter.get_total_flops() > 0


def test_a_vae_is_trained_with_it(
    tiny_vae_run: Callable[..., VAERun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "VALIDATED", 8)
    monkeypatch.setattr(reconstruction, "MEASURED", 8)
    told = [
        train_vae(tiny_vae_run(steps=2, recompute=wanted), tmp_path / str(wanted)).state_dict()
        for wanted in (False, True)
    ]
    assert all(told[0][key].equal(told[1][key]) for key in told[0])
