"""Means over seeds and how sure they are: closed forms."""

import math

import pytest

from fromnoise.evaluation.intervals import below_one, estimate, share_difference, wilson


def test_two_seeds_by_student():
    found = estimate([1.0, 3.0])
    half = math.tan(math.pi * 0.475) * math.sqrt(2) / math.sqrt(2)  # with one degree of freedom t is Cauchy's
    assert found == {"mean": 2.0, "low": pytest.approx(2 - half), "high": pytest.approx(2 + half), "seeds": 2}


def test_many_seeds():
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found["high"] - found["mean"] == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)


def test_a_higher_level_is_wider():
    assert estimate([1.0, 3.0], level=0.99)["high"] == pytest.approx(2 + math.tan(math.pi * 0.495))


def test_the_difference_of_two_shares_as_published():
    """Newcombe 1998, Table II, method 10: 56 of 70 less 48 of 80, and 0 of 10 less 0 of 20."""
    assert share_difference((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert share_difference((0, 10), (0, 20)) == pytest.approx((-0.1611, 0.2775), abs=1e-4)
    assert share_difference((48, 80), (56, 70)) == pytest.approx((-0.3339, -0.0524), abs=1e-4)


def test_one_seed_has_the_interval_of_its_value_or_none():
    assert estimate([0.5], [0.4, 0.6]) == {"mean": 0.5, "low": 0.4, "high": 0.6, "seeds": 1}
    assert estimate([0.5]) == {"mean": 0.5, "low": None, "high": None, "seeds": 1}


def test_it_is_never_narrower_than_chance_nor_wider_than_what_is_possible():
    same = estimate([0.5, 0.5], [0.4, 0.6])
    assert (same["low"], same["high"]) == (0.4, 0.6)
    apart = estimate([0.1, 0.9], [0.4, 0.6], (0.0, 1.0))
    assert (apart["low"], apart["high"]) == (0.0, 1.0)


def test_a_share_below_one_of_others_carries_its_chance():
    """Of one other alone, every count is as likely; of endless others, only the share's own chance is left."""
    assert below_one(0, 19, 1)[0] == 0 and below_one(19, 19, 1)[1] == 1
    low, high = below_one(10, 19, 1)
    assert low < 0.5 < high and high - low > 0.9
    assert below_one(40, 200, 10**7) == pytest.approx(wilson(40, 200), abs=0.005)
    narrow, wide = below_one(40, 200, 1000), below_one(40, 200, 50)
    assert wide[0] < narrow[0] < 0.2 < narrow[1] < wide[1]
