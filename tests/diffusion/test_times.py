"""Times: where they lie, and the schedule of a sampler."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.diffusion.times import EDGE, LogitNormal, Uniform, schedule, shifted

shifts = st.floats(0.05, 20)
times = st.floats(0, 1)
steady = settings(max_examples=100, deadline=None, derandomize=True)


@steady
@given(t=times, s=shifts)
def test_shift_is_undone_by_its_inverse(t, s):
    assert shifted(shifted(t, s), 1 / s) == pytest.approx(t, abs=1e-12)


@steady
@given(a=times, b=times, s=shifts)
def test_shift_keeps_order_and_ends(a, b, s):
    assert shifted(0.0, s) == 0
    assert shifted(1.0, s) == pytest.approx(1)
    if b - a > 1e-9:
        assert shifted(a, s) < shifted(b, s)


@steady
@given(t=st.floats(0.01, 0.99), s=shifts)
def test_shift_moves_the_log_odds_by_its_logarithm(t, s):
    def logit(p: float) -> float:
        return log(p / (1 - p))

    assert logit(shifted(t, s)) - logit(t) == pytest.approx(log(s))


@steady
@given(steps=st.integers(1, 1000), s=shifts, t_max=st.floats(0.5, 1))
def test_schedule_falls_strictly_from_t_max_to_zero(steps, s, t_max):
    t = schedule(steps, s, t_max)
    assert t.shape == (steps + 1,)
    assert t.dtype == torch.float32
    assert t[0].item() == pytest.approx(t_max)
    assert t[0] <= 1
    assert t[-1] == 0
    assert (t.diff() < 0).all()


def test_schedule_starts_at_exactly_one_and_is_even_without_shift():
    assert schedule(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert all(schedule(28, s)[0] == 1 for s in (0.3, 1 / 3, 1.0, 3.0))
    assert schedule(2, 3.0)[1].item() == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1.0, 1.0), "steps is 0"),
        ((5, 0.0, 1.0), "shift is 0"),
        ((5, 1.0, 1.5), "t_max is 1.5"),
        ((5, 1.0, 0.0), "t_max is 0"),
    ],
)
def test_schedule_refuses_what_makes_no_sense(arguments, words):
    with pytest.raises(ValueError, match=f"{words}; allowed"):
        schedule(*arguments)


@steady
@given(n=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_each_part_of_the_times_is_trained_on_once_in_a_batch(n, seed):
    for times in (Uniform(), LogitNormal(mean=0.4, std=0.7)):
        t = times.sample(n, torch.Generator().manual_seed(seed)).double()
        share = t if isinstance(times, Uniform) else torch.special.ndtr((t.logit() - 0.4) / 0.7)
        assert (share * n - torch.arange(n)).sub(0.5).abs().max() <= 0.5 + 1e-3


def test_uniform_has_uniform_quantiles():
    t = Uniform().sample(20000, torch.Generator().manual_seed(0)).sort().values
    expected = (torch.arange(20000) + 0.5) / 20000
    assert (t - expected).abs().max() < 1.63 / 20000**0.5  # Kolmogorov-Smirnov, 1 %


@pytest.mark.parametrize(("mean", "std", "shift"), [(0.0, 1.0, 1.0), (-0.8, 0.8, 1.0), (0.5, 1.2, 3.0)])
def test_logit_normal_has_its_mean_and_std_and_the_shift_adds_to_the_mean(mean, std, shift):
    n = 40000
    z = LogitNormal(mean=mean, std=std, shift=shift).sample(n, torch.Generator().manual_seed(0)).logit()
    assert z.mean().item() == pytest.approx(mean + log(shift), abs=4 * std / n**0.5)
    assert z.std().item() == pytest.approx(std, abs=4 * std / (2 * n) ** 0.5)


def test_uniform_shift_is_the_shift():
    plain = Uniform().sample(1000, torch.Generator().manual_seed(5))
    moved = Uniform(shift=3.0).sample(1000, torch.Generator().manual_seed(5))
    torch.testing.assert_close(moved, shifted(plain, 3.0))


@pytest.mark.parametrize(
    "times", [Uniform(), Uniform(shift=1e4), LogitNormal(std=9.0), LogitNormal(mean=-20.0)], ids=repr
)
def test_trained_times_stay_off_the_ends(times):
    t = times.sample(5000, torch.Generator().manual_seed(1))
    assert t.min() >= EDGE
    assert t.max() < 1
    assert t.dtype == torch.float32


def test_the_generator_decides():
    first, again = (LogitNormal().sample(8, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    generator = torch.Generator().manual_seed(5)
    LogitNormal().sample(8, generator)
    assert not torch.equal(first, LogitNormal().sample(8, generator))
