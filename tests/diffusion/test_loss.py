"""The objective: predicting one thing and measuring another is a weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fromnoise.core.types import Cond
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Cosine, Linear, expand, mix
from fromnoise.diffusion.target import TARGETS, solve

PATHS = [Linear(), Cosine(), VP()]
NAMES = list(TARGETS)
NOTHING = Cond(torch.zeros(4, 1, 1), torch.ones(4, 1, dtype=torch.bool), torch.zeros(4, 1))
inside = st.floats(0.05, 0.95)
any_path, any_name = st.sampled_from(PATHS), st.sampled_from(NAMES)
steady = settings(max_examples=200, deadline=None, derandomize=True)


@steady
@given(path=any_path, target=any_name, measure=any_name, t=st.lists(inside, min_size=4, max_size=4))
def test_the_loss_is_the_squared_error_in_the_measure(path, target, measure, t):
    """Against the long way round: solve for x0 and eps, and compare in the measure."""
    t = torch.tensor(t, dtype=torch.float64)
    x0, eps, y = torch.randn(3, 4, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coefs = path(t)
    said = solve(coefs, TARGETS[target], mix(coefs, x0, eps), y)
    a, b = (expand(c, x0) for c in TARGETS[measure](coefs))
    long_way = (a * (said.x0 - x0) + b * (said.eps - eps)).square().mean((1, 2, 3))
    objective = Objective(target=target, measure=measure, max_weight=1e12)
    loss = objective.loss(lambda x, t, cond: y, x0, NOTHING, t, eps, path)
    torch.testing.assert_close(loss, long_way, rtol=1e-7, atol=0)


@steady
@given(path=any_path, a=any_name, b=any_name, t=inside)
def test_weights_there_and_back_are_one(path, a, b, t):
    t = torch.tensor([t], dtype=torch.float64)
    there, back = Objective(target=a, measure=b, max_weight=1e12), Objective(target=b, measure=a, max_weight=1e12)
    assert (there.weight(path, t) * back.weight(path, t)).item() == pytest.approx(1)


def test_weights_are_those_on_paper():
    t = torch.tensor([0.01, 0.05, 0.2, 0.5, 1.0], dtype=torch.float64)
    weight = Objective(target="x0", measure="flow").weight(Linear(), t)  # JiT: 1 / max(t, 0.05)^2
    torch.testing.assert_close(weight, 1 / t.clamp(min=0.05) ** 2)
    coefs = VP()(t)
    snr = Objective(target="x0", measure="eps", max_weight=1e12).weight(VP(), t)
    torch.testing.assert_close(snr, (coefs.alpha / coefs.sigma) ** 2)


def test_the_weight_is_clamped_and_never_infinite():
    t = torch.tensor([1e-5, 1e-3, 0.5])
    for path in PATHS:
        weight = Objective(max_weight=25.0).weight(path, t)
        assert weight.max() == 25
        assert weight.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_knows_has_no_loss(name):
    t = torch.tensor([0.1, 0.4, 0.6, 0.9])
    x0, eps = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    a, b = TARGETS[name](Cosine()(t))
    objective = Objective(target=name)

    def knows(x, time, cond):
        torch.testing.assert_close(x, mix(Cosine()(t), x0, eps))
        assert time is t
        assert cond is NOTHING
        return torch.stack([a[i] * x0[i] + b[i] * eps[i] for i in range(4)])  # B = W: sample by sample

    assert objective.loss(knows, x0, NOTHING, t, eps, Cosine()).max() < 1e-10


def test_the_loss_is_float32_and_has_a_gradient_when_the_network_answers_in_bfloat16():
    t = torch.tensor([0.1, 0.4, 0.6, 0.9])
    x0, eps = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    scale = torch.ones((), requires_grad=True)
    loss = Objective().loss(lambda x, t, cond: (scale * x).bfloat16(), x0, NOTHING, t, eps, Linear())
    loss.mean().backward()
    assert loss.shape == (4,)
    assert loss.dtype == torch.float32
    assert scale.grad is not None
    assert scale.grad.abs() > 0


@pytest.mark.parametrize("wrong", [{"target": "noise"}, {"max_weight": 0}, {"dropout": 1.5}, {"wieght": 1}])
def test_objective_refuses_what_it_does_not_know(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Objective(**wrong)
