"""The optimizers against torch's own, and the schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fromnoise.models.config import CNNConfig, UNetConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import optim
from fromnoise.training.optim import Optimizer, StackedMuon, orthogonal, schedule
from fromnoise.training.run import AdamW, Muon


def matrices(seed: int) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(16, 16), (64, 16), (16, 64), (16, 16), (96, 16), (64, 16)]
    return {f"m{i}": nn.Parameter(torch.randn(shape, generator=generator)) for i, shape in enumerate(shapes)}


def set_gradients(parameters: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in parameters.values():
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize(("numbers", "stacks"), [(2**22, [2, 3, 1]), (2048, [2, 2, 1, 1]), (1, [1] * 6)])
def test_stacked_muon_is_torchs_muon(monkeypatch: pytest.MonkeyPatch, numbers: int, stacks: list[int]) -> None:
    monkeypatch.setattr(optim, "TOGETHER", numbers)
    monkeypatch.setattr(optim, "FEWEST", 1)
    ours, theirs = matrices(0), matrices(0)
    config = Muon(lr=0.02, weight_decay=0.1, momentum=0.9)
    stacked = StackedMuon(ours, config)
    assert [len(stack.names) for stack in stacked.stacks] == stacks
    stock = torch.optim.Muon(theirs.values(), lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    start = {name: p.detach().clone() for name, p in ours.items()}
    for step in range(5):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        stacked.step(1.0)
        stock.step()
    for name, p in ours.items():
        moved = (theirs[name] - start[name]).norm()
        # bfloat16 products round: torch's own batched and single products differ by as much.
        assert (p - theirs[name]).norm() < 0.01 * moved, name


@pytest.mark.parametrize("fast", [False, True])
def test_updates_are_in_bfloat16_only_where_a_device_has_products_of_it(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr(optim, "has_bfloat16", lambda device: fast)
    given = torch.randn(2, 4, 8)
    singular = torch.linalg.svdvals(orthogonal(given).float())
    assert orthogonal(given).dtype == (torch.bfloat16 if fast else torch.float32)
    assert singular.min() > 0.6 and singular.max() < 1.3
    assert orthogonal(given) is not given and given.dtype == torch.float32


def test_a_convolution_is_a_matrix_to_muon() -> None:
    ours, theirs = matrices(0), matrices(0)
    kernels = {name: nn.Parameter(p.detach().view(len(p), -1, 2, 2).clone()) for name, p in ours.items()}
    for step in range(3):
        for named in (ours, theirs):
            set_gradients(named, step)
        for name, p in kernels.items():
            gradient = theirs[name].grad
            assert gradient is not None
            p.grad = gradient.view_as(p)
        if step == 0:
            flat, folded = StackedMuon(ours, Muon()), StackedMuon(kernels, Muon())
        flat.step(1.0)
        folded.step(1.0)
    assert all(torch.equal(p.flatten(), ours[name].flatten()) for name, p in kernels.items())
    assert not torch.equal(ours["m0"], theirs["m0"])


@given(st.integers(0, 10_000), st.integers(2, 24), st.integers(0, 24))
def test_newton_schulz_makes_all_singular_values_about_one(seed: int, rows: int, more: int) -> None:
    matrix = torch.randn(3, rows, rows + more, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(orthogonal(matrix).float())
    spread = torch.linalg.svdvals(matrix)
    big = spread > 0.05 * spread[:, :1]  # five steps do not lift a value near zero
    assert values.max() < 1.35
    assert values[big].min() > 0.4


def test_muon_takes_the_blocks_matrices_and_adamw_the_rest(pipeline: Pipeline) -> None:
    optimizer = Optimizer(pipeline, Muon())
    assert optimizer.muon is not None
    inside = set(optimizer.muon.named)
    assert inside | set(optimizer.named) == {name for name, _ in pipeline.named_parameters()}
    assert not inside & set(optimizer.named)
    assert all(pipeline.get_parameter(name).ndim == 2 for name in inside)
    assert {"backbone.transformer_blocks.0.attn.to_q.weight", "conditioner.layers.0.up.weight"} <= inside
    left = {name for name, p in optimizer.named.items() if p.ndim == 2 and ".transformer_blocks." in name}
    assert left and all("_mod.1." in name for name in left)


@pytest.mark.parametrize(
    "backbone", [UNetConfig(width=16, multipliers=(1, 2), attention=(1,), heads=4, groups=8), CNNConfig()]
)
def test_muon_takes_the_convolutions_between_the_first_and_the_last(backbone: UNetConfig | CNNConfig) -> None:
    model = nn.ModuleDict({"backbone": backbone.build(1, 32)})
    optimizer = Optimizer(model, Muon())
    left = {name for name, p in optimizer.named.items() if p.ndim == 4}
    assert left == {"backbone.conv_in.weight", "backbone.conv_out.weight"}
    assert optimizer.muon is not None
    assert not any("time" in name or ".said." in name for name in optimizer.muon.named)


def test_adamw_is_torchs_adamw_and_decays_matrices_only() -> None:
    ours, theirs = matrices(0), matrices(0)
    for named in (ours, theirs):
        named["bias"] = nn.Parameter(torch.ones(8))
    optimizer = Optimizer(nn.ParameterDict(ours), AdamW(lr=0.01, beta2=0.9, weight_decay=0.5))
    stock = torch.optim.AdamW(
        [{"params": [p for p in theirs.values() if p.ndim == 2]}, {"params": [theirs["bias"]], "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.9),
        weight_decay=0.5,
    )
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step(0.5)
        for group in stock.param_groups:
            group["lr"] = 0.005
        stock.step()
    for name, p in ours.items():
        torch.testing.assert_close(p, theirs[name])


@pytest.mark.parametrize("config", [AdamW(), Muon(weight_decay=0.1)])
def test_state_comes_back_to_the_bit(pipeline: Pipeline, config: AdamW | Muon) -> None:
    named = dict(pipeline.named_parameters())
    optimizer = Optimizer(pipeline, config)
    set_gradients(named, 0)
    optimizer.step(1.0)
    state = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    weights = {name: p.detach().clone() for name, p in named.items()}
    set_gradients(named, 1)
    optimizer.step(1.0)
    went_on = {name: p.detach().clone() for name, p in named.items()}

    with torch.no_grad():
        for name, p in named.items():
            p.copy_(weights[name])
    fresh = Optimizer(pipeline, config)
    fresh.load(state)
    set_gradients(named, 1)
    fresh.step(1.0)
    assert all(torch.equal(p, went_on[name]) for name, p in named.items())


def test_schedule_rises_rests_and_falls_to_zero() -> None:
    rates = [schedule(step, 100, 10, 0.5) for step in range(101)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10:51] == [1.0] * 41
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in pairwise(rates[10:]))


@given(st.integers(1, 500), st.integers(0, 600), st.floats(0, 1))
def test_the_rate_is_always_a_share_and_never_zero_before_the_end(steps: int, warmup: int, decay: float) -> None:
    rates = [schedule(step, steps, warmup, decay) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
