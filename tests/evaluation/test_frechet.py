"""Frechet distance: closed forms, and scipy's matrix square root."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from fromnoise.evaluation.distances.frechet import Gaussian, floor, frechet, frechet_distance, gaussian


def drawn(seed: int, width: int, rank: int) -> Gaussian:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(width, rank))
    return Gaussian(torch.from_numpy(rng.normal(size=width)), torch.from_numpy(factor @ factor.T))


class TestClosedForms:
    def test_one_dimension(self) -> None:
        a = Gaussian(torch.tensor([1.0]).double(), torch.tensor([[4.0]]).double())
        b = Gaussian(torch.tensor([-2.0]).double(), torch.tensor([[9.0]]).double())
        assert frechet(a, b) == pytest.approx((1 + 2) ** 2 + (2 - 3) ** 2, rel=1e-12)

    @given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(-5, 5)), min_size=1, max_size=12))
    def test_diagonal_covariances(self, rows: list[tuple[float, float, float]]) -> None:
        p, q, gap = torch.tensor(rows).double().T
        a, b = Gaussian(torch.zeros_like(p), p.diag()), Gaussian(gap, q.diag())
        expected = (gap**2 + (p.sqrt() - q.sqrt()) ** 2).sum().item()
        assert frechet(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    @given(st.integers(0, 100), st.integers(1, 20), st.floats(0.1, 4))
    def test_a_scaled_copy(self, seed: int, width: int, scale: float) -> None:
        a = drawn(seed, width, width)
        b = Gaussian(a.mean, a.covariance * scale**2)
        expected = (1 - scale) ** 2 * a.covariance.trace().item()
        assert frechet(a, b) == pytest.approx(expected, rel=1e-8, abs=1e-8)

    @given(st.integers(0, 100), st.integers(1, 30), st.integers(1, 30))
    def test_none_to_itself_and_the_same_both_ways(self, seed: int, width: int, rank: int) -> None:
        a, b = drawn(seed, width, rank), drawn(seed + 1, width, width)
        scale = a.covariance.trace().item() + b.covariance.trace().item()
        # The root of an eigenvalue that rounding leaves at 1e-16 of the largest is 1e-8 of its root.
        assert frechet(a, a) <= 1e-6 * scale
        assert frechet(a, b) == pytest.approx(frechet(b, a), abs=1e-6 * scale)


@pytest.mark.parametrize("width", [1, 5, 128])
def test_as_by_the_matrix_square_root(width: int) -> None:
    a, b = drawn(0, width, 2 * width), drawn(1, width, 2 * width)
    shared = np.trace(linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy())).real
    apart = ((a.mean - b.mean) ** 2).sum().item()
    expected = apart + np.trace(a.covariance.numpy() + b.covariance.numpy()) - 2 * shared
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


class TestFeatures:
    def test_mean_and_covariance(self) -> None:
        features = np.random.default_rng(0).normal(3, 2, (50, 7)).astype(np.float32)
        found = gaussian(torch.from_numpy(features))
        assert found.mean.dtype == found.covariance.dtype == torch.float64
        np.testing.assert_allclose(found.mean, features.astype(float).mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(features.astype(float).T), rtol=1e-10)

    def test_far_from_zero_nothing_is_lost(self) -> None:
        features = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)).double()
        assert frechet_distance(features + 1e4, features) == pytest.approx(4e8, rel=1e-6)
        assert gaussian(features + 1e4).covariance == pytest.approx(gaussian(features).covariance, rel=1e-6, abs=1e-8)

    def test_fewer_pictures_than_features_stay_real(self) -> None:
        features = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
        assert 0 <= frechet_distance(features, features) < 1e-4
        assert frechet_distance(features[:10], features[10:]) > 10

    def test_the_floor_falls_as_one_over_the_number_of_pictures(self) -> None:
        generator = torch.Generator().manual_seed(0)
        real, reference = torch.randn(2, 40_000, 16, generator=generator)
        few, many = floor(real, reference, 500), floor(real, reference, 5000)
        assert 5 < few / many < 11 and floor(real, reference, 500) == few
        with pytest.raises(ValueError, match="a floor of 50,000 pictures needs as many real ones; there are 40,000"):
            floor(real, reference, 50_000)

    @pytest.mark.parametrize("shape", [(1, 3), (0, 3), (5,), (2, 3, 4)])
    def test_too_few_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"allowed: \(N, D\), N of two or more"):
            gaussian(torch.zeros(shape))

    def test_what_is_not_finite_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not finite"):
            gaussian(torch.full((3, 3), torch.nan))
