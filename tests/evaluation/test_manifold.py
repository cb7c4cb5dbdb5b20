"""Precision, recall, density, coverage: sets that are equal, apart or nested, and what chance makes of equal ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fromnoise.evaluation.distances import manifold
from fromnoise.evaluation.distances.compared import LEAST, compared
from fromnoise.evaluation.distances.manifold import density_coverage, precision_recall, radii


def normal(seed: int, count: int, width: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 100), st.integers(7, 40), st.integers(1, 6))
def test_the_same_pictures_are_all_found(seed: int, count: int, width: int) -> None:
    same = normal(seed, count, width)
    assert precision_recall(same, same) == (1, 1)
    assert density_coverage(same, same) == (pytest.approx(1), 1)  # in each ball, k: itself and k - 1 nearer ones


@given(st.integers(0, 100), st.integers(7, 40), st.integers(7, 40))
def test_sets_far_apart_share_nothing(seed: int, n: int, m: int) -> None:
    drawn, real = normal(seed, n, 3), normal(seed + 1, m, 3) + 1000
    assert precision_recall(drawn, real) == (0, 0)
    assert density_coverage(drawn, real) == (0, 0)


def test_one_picture_over_and_over_is_real_and_covers_nothing() -> None:
    real = normal(0, 500, 4)
    again = real[:1].expand(500, -1)
    assert precision_recall(again, real)[0] == 1 and precision_recall(again, real)[1] == pytest.approx(1 / 500)
    density, coverage = density_coverage(again, real)
    assert density > 0 and coverage < 0.1


def test_a_wider_spread_costs_precision_and_a_narrower_one_recall() -> None:
    real = normal(0, 1000, 4)
    wide, narrow = normal(1, 1000, 4, 2.0), normal(1, 1000, 4, 0.3)
    assert precision_recall(wide, real)[0] < 0.6 < precision_recall(wide, real)[1]
    assert precision_recall(narrow, real)[1] < 0.3 < precision_recall(narrow, real)[0]
    assert density_coverage(narrow, real)[0] > 0.9 > 0.7 > density_coverage(wide, real)[0]
    assert density_coverage(narrow, real)[1] < 0.6 < density_coverage(real.flip(0), real)[1]


@pytest.mark.parametrize("k", [3, 5])
def test_coverage_of_equal_distributions_is_known(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naeem et al. 2020, Lemma 2: 1 - (N - 1)...(N - k) / ((M + N - 1)...(M + N - k)), density 1."""
    n, m = 400, 300
    monkeypatch.setattr(manifold, "ROWS", 128)
    found = [density_coverage(normal(2 * s, m, 2), normal(2 * s + 1, n, 2), k) for s in range(12)]
    expected = 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    density, coverage = np.array(found).mean(0)
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("width", [2, 64])
def test_as_by_all_pairs(width: int) -> None:
    drawn, real = normal(0, 90, width), normal(1, 70, width, 1.2)
    a, b = drawn.numpy().astype(float), real.numpy().astype(float)
    reach_a, reach_b = (np.sort(cdist(x, x), 1)[:, 3] for x in (a, b))
    across = cdist(a, b)
    expected = (across <= reach_b).any(1).mean(), (reach_a >= across.T).any(1).mean()
    assert precision_recall(drawn, real) == pytest.approx(expected)
    reach = np.sort(cdist(b, b), 1)[:, 5]
    np.testing.assert_allclose(radii(real, 5), reach, rtol=1e-9)
    inside = across < reach
    assert density_coverage(drawn, real) == pytest.approx((inside.sum() / (5 * 90), inside.any(0).mean()))


def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="balls to neighbour 5 of 5 pictures; allowed: more than 5"):
        radii(normal(0, 5, 2), 5)


class TestCompared:
    def test_all_beside_their_floor(self) -> None:
        real = normal(0, 3000, 8)
        found, notes = compared(normal(1, 1000, 8, 1.5), real[:1000], real[1000:])
        assert not notes and found["samples"] == 1000 and found["reference"] == 2000 and found["kernel_subset"] == 500
        assert found["frechet"] > 10 * found["frechet_floor"] and found["kernel"] > 10 * abs(found["kernel_floor"])
        assert found["precision"] < found["precision_floor"] and found["recall_floor"] > 0.8
        assert found["density"] < found["density_floor"] and found["coverage"] < found["coverage_floor"]

    def test_drawn_and_floor_are_as_many(self) -> None:
        real = normal(0, 500, 3)
        assert compared(normal(1, 400, 3), real[:30], real[30:])[0]["samples"] == 30

    def test_balls_are_compared_among_equal_numbers(self) -> None:
        real = normal(0, 2200, 3)
        assert compared(normal(1, 200, 3), real[:200], real[200:])[0]["coverage"] > 0.9  # of all balls .4 at most

    @pytest.mark.parametrize(("count", "left"), [(9, 0), (10, 3), (19, 3), (20, 4)])
    def test_what_too_few_do_not_allow_is_said_and_not_computed(self, count: int, left: int) -> None:
        real = normal(0, 200, 3)
        found, notes = compared(normal(1, count, 3), real[:100], real[100:])
        assert sum(key in found for key in ("frechet", "kernel", "precision", "coverage")) == left
        assert len(notes) == 4 - left and all(f"of {count} pictures would say nothing; allowed:" in n for n in notes)
        assert set(LEAST) == {"frechet", "kernel", "precision and recall", "density and coverage"}

    def test_bias_is_told(self) -> None:
        real = normal(0, 300, 64)
        assert "read it beside its floor" in compared(normal(1, 50, 64), real[:50], real[50:])[1][0]
