"""Targets: the one solve undoes the mix, and a pair that is singular is refused by name."""

from math import pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.diffusion.path import VP, Cosine, Linear, expand, mix
from fromnoise.diffusion.target import LARGEST_AMPLIFICATION, TARGETS, amplification, check, det, largest_start, solve

PATHS = [Linear(), Cosine(), VP()]
pairs = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
paths = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.type)
inside = st.floats(0.01, 0.99)
any_pair = {"path": st.sampled_from(PATHS), "target": st.sampled_from(list(TARGETS.values()))}
steady = settings(max_examples=150, deadline=None, derandomize=True)


def answer(coefs, target, x0, eps):
    a, b = target(coefs)
    return expand(a, x0) * x0 + expand(b, x0) * eps


@steady
@given(**any_pair, t=st.lists(inside, min_size=2, max_size=2), seed=st.integers(0, 99))
def test_solve_inverts_the_mix(path, target, t, seed):
    coefs = path(torch.tensor(t, dtype=torch.float64))
    x0, eps = torch.randn(2, 2, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    solved = solve(coefs, target, mix(coefs, x0, eps), answer(coefs, target, x0, eps))
    torch.testing.assert_close(solved.x0, x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(solved.eps, eps, rtol=1e-8, atol=1e-8)


@steady
@given(**any_pair, t=inside)
def test_solve_keeps_x_t_whatever_the_answer(path, target, t):
    coefs = path(torch.tensor([t], dtype=torch.float64))
    x_t, y = torch.randn(2, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mix(coefs, *solve(coefs, target, x_t[None, 0], y[None, 0])), x_t[None, 0])


@steady
@given(**any_pair, t=inside)
def test_amplification_is_the_error_of_x0_per_error_of_the_answer(path, target, t):
    coefs = path(torch.tensor([t], dtype=torch.float64))
    x0 = torch.zeros(1, 1, dtype=torch.float64)
    wrong = solve(coefs, target, x0, answer(coefs, target, x0, x0) + 1)
    torch.testing.assert_close(wrong.x0.abs()[0], amplification(coefs, target))


def test_determinants_are_those_on_paper():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    linear, cosine = Linear()(t), Cosine()(t)
    one = torch.ones_like(t)
    for coefs, name, closed in [
        (linear, "flow", one),
        (linear, "eps", 1 - t),
        (linear, "x0", -t),
        (linear, "v", (1 - t) ** 2 + t**2),
        (cosine, "v", one),
        (cosine, "flow", one * pi / 2),
    ]:
        torch.testing.assert_close(det(coefs, TARGETS[name]), closed)


def test_v_is_salimans_and_flow_is_the_time_derivative():
    t = torch.tensor([0.37], dtype=torch.float64)
    x0, eps = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[-0.7]], dtype=torch.float64)
    coefs = VP()(t)
    torch.testing.assert_close(answer(coefs, TARGETS["v"], x0, eps), coefs.alpha * eps - coefs.sigma * x0)
    rate = (mix(VP()(t + 1e-6), x0, eps) - mix(VP()(t - 1e-6), x0, eps)) / 2e-6
    torch.testing.assert_close(answer(coefs, TARGETS["flow"], x0, eps), rate, rtol=1e-5, atol=0)


def test_four_samples_at_four_times_in_pictures_of_four_by_four():
    t = torch.tensor([0.1, 0.4, 0.7, 0.9])
    x_t, y = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    together = solve(Cosine()(t), TARGETS["v"], x_t, y)
    for i in range(4):
        alone = solve(Cosine()(t[i : i + 1]), TARGETS["v"], x_t[i : i + 1], y[i : i + 1])
        torch.testing.assert_close(together.x0[i : i + 1], alone.x0)
        torch.testing.assert_close(together.eps[i : i + 1], alone.eps)


@paths
@pairs
def test_largest_start_is_the_latest_time_that_check_allows(path, target):
    start = largest_start(path, target)
    check(path, target, 0.001, start)
    worst = amplification(path(torch.tensor([start], dtype=torch.float64)), target).item()
    assert worst <= LARGEST_AMPLIFICATION
    if start < 1:
        assert worst > 0.95 * LARGEST_AMPLIFICATION  # cut no earlier than the bound says
        with pytest.raises(ValueError, match="eps"):
            check(path, target, 0.001, start + 1e-3)


def test_only_eps_on_paths_without_signal_must_start_early():
    early = {(p.type, n): largest_start(p, t) for p in PATHS for n, t in TARGETS.items() if largest_start(p, t) < 1}
    assert early == {("linear", "eps"): 0.995, ("cosine", "eps"): 0.9968}


@pytest.mark.parametrize(
    ("path", "name", "t_min", "t_max", "words"),
    [
        (Linear(), "eps", 0.01, 1, "target eps on path linear: .* grows without bound at t=1; .* 0 < t <= 0.995"),
        (Cosine(), "eps", 0.01, 0.999, "target eps on path cosine: .* grows 637-fold at t=0.999; .* 0 < t <= 0.9968"),
        (Linear(), "x0", 0, 1, "target x0 on path linear: .* grows without bound at t=0; .* 0 < t <= 1"),
        (VP(), "x0", 0, 1, "target x0 on path vp: .* at t=0"),
    ],
)
def test_a_singular_pair_is_refused_by_name(path, name, t_min, t_max, words):
    with pytest.raises(ValueError, match=words) as refused:
        check(path, TARGETS[name], t_min, t_max)
    assert "\n" not in str(refused.value)


def test_a_pole_in_the_middle_is_refused_and_not_started_below(monkeypatch):
    monkeypatch.setitem(TARGETS, "sum", lambda c: (c.sigma, c.alpha))  # x_t and y say the same at t = 0.5
    start = largest_start(Linear(), TARGETS["sum"])
    assert start == 1
    with pytest.raises(ValueError, match=r"target sum on path linear: .* at t=0\.5.*; .* 0 < t <= 0\.4987$"):
        check(Linear(), TARGETS["sum"], 0.01, start)
    monkeypatch.setitem(TARGETS, "nothing", lambda c: (0 * c.alpha, 0 * c.sigma))
    with pytest.raises(ValueError, match=r"target nothing .* 0 < t <= 0$"):
        check(Linear(), TARGETS["nothing"], 0.01, largest_start(Linear(), TARGETS["nothing"]))


@paths
@pytest.mark.parametrize("name", ["v", "flow"])
def test_v_and_flow_are_usable_everywhere(path, name):
    check(path, TARGETS[name], 0, 1)
