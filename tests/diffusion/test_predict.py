"""Guidance wraps the predictor, and pays for a second forward only where it guides."""

import pytest
import torch

from fromnoise.core.types import Cond
from fromnoise.diffusion.path import Linear
from fromnoise.diffusion.predict import guided, predictor
from fromnoise.diffusion.target import TARGETS


def condition(value: float, n: int, length: int = 2) -> Cond:
    return Cond(torch.full((n, length, 1), value), torch.ones(n, length, dtype=torch.bool), torch.full((n, 1), value))


class Network:
    """A non-linear answer that depends on x, t and the condition; remembers the batches it was asked for."""

    def __init__(self):
        self.batches: list[int] = []

    def __call__(self, x, t, cond):
        assert len(x) == len(t) == len(cond.tokens) == len(cond.vector)
        self.batches.append(len(x))
        return torch.sin(x * (1 + t[:, None, None, None])) + cond.vector[:, :, None, None] ** 2


B = 4
COND, NULL = condition(2.0, B), condition(0.5, B, length=1)
SETTING = {"path": Linear(), "target": TARGETS["flow"]}
X = torch.randn(B, B, B, B, generator=torch.Generator().manual_seed(0))
T = torch.full((B,), 0.6)


def test_scale_one_is_conditional_with_one_forward():
    network = Network()
    said = guided(network, COND, NULL, 1.0, (0.0, 1.0), **SETTING)(X, T)
    assert network.batches == [B]
    torch.testing.assert_close(said, predictor(Network(), COND, **SETTING)(X, T), rtol=0, atol=0)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.0, 0.1)])
def test_scale_zero_is_unconditional_with_one_forward_at_every_time(interval):
    network = Network()
    said = guided(network, COND, NULL, 0.0, interval, **SETTING)(X, T)
    assert network.batches == [B]
    torch.testing.assert_close(said, predictor(Network(), NULL, **SETTING)(X, T), rtol=0, atol=0)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_any_other_scale_extrapolates_with_one_doubled_forward(scale, target):
    network = Network()
    setting = {"path": Linear(), "target": target}
    said = guided(network, COND, NULL, scale, (0.0, 1.0), **setting)(X, T)
    assert network.batches == [2 * B]
    with_prompt, without = (predictor(Network(), c, **setting)(X, T) for c in (COND, NULL))
    torch.testing.assert_close(said.x0, without.x0 + scale * (with_prompt.x0 - without.x0))
    torch.testing.assert_close(said.eps, without.eps + scale * (with_prompt.eps - without.eps))


def test_no_doubled_forward_outside_the_interval():
    network = Network()
    predict = guided(network, COND, NULL, 4.0, (0.3, 0.8), **SETTING)
    for t in (0.9, 0.8, 0.5, 0.3, 0.2):
        predict(X, torch.full((B,), t))
    assert network.batches == [B, 2 * B, 2 * B, 2 * B, B]
    outside = predict(X, torch.full((B,), 0.9))
    torch.testing.assert_close(outside, predictor(Network(), COND, **SETTING)(X, torch.full((B,), 0.9)))


def test_each_sample_is_guided_at_its_own_time():
    # B = W as well: a (B,) scale that met the picture directly would scale its columns.
    times = torch.tensor([0.1, 0.5, 0.9, 0.6])
    together = guided(Network(), COND, NULL, 3.0, (0.4, 0.7), **SETTING)(X, times)
    for i in range(B):
        predict = guided(Network(), condition(2.0, 1), condition(0.5, 1), 3.0, (0.4, 0.7), **SETTING)
        alone = predict(X[i : i + 1], times[i : i + 1])
        torch.testing.assert_close(together.x0[i : i + 1], alone.x0)


@pytest.mark.parametrize(
    ("scale", "interval", "words"),
    [
        (-1.0, (0.0, 1.0), "guidance is -1; allowed >= 0"),
        (2.0, (0.8, 0.2), "interval is 0.8 to 0.2; allowed"),
        (2.0, (0.0, 2.0), "interval is 0 to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(scale, interval, words):
    with pytest.raises(ValueError, match=words):
        guided(Network(), COND, NULL, scale, interval, **SETTING)
