"""Kernel distance: moments of known distributions, a plain loop over pairs, and what the field's library has."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from fromnoise.evaluation.distances.frechet import frechet_distance
from fromnoise.evaluation.distances.kernel import discrepancy, kernel_distance


def normal(seed: int, count: int, width: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    return mean + std * torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_moments(mean: float, std: float, other_mean: float, other_std: float) -> float:
    """MMD^2 of two normal distributions on the line: (xy + 1)^3 = 1 + 3 xy + 3 x^2 y^2 + x^3 y^3, term by term."""
    ours, theirs = ([m, m**2 + s**2, m**3 + 3 * m * s**2] for m, s in ((mean, std), (other_mean, other_std)))
    return sum(c * (a - b) ** 2 for c, a, b in zip((3, 3, 1), ours, theirs, strict=True))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 1.0), (0.0, 1.5), (-0.3, 0.5)])
def test_the_moments_of_normal_distributions(mean: float, std: float) -> None:
    found = kernel_distance(normal(0, 20_000, 1), normal(1, 20_000, 1, mean, std), subsets=60, largest=400)
    expected = of_moments(0.0, 1.0, mean, std)
    assert found.size == 400
    assert found.mean == pytest.approx(expected, abs=4 * found.deviation / 60**0.5 + 1e-3)
    assert (found.mean > 3 * found.deviation / 60**0.5) == (expected > 0)


@given(st.integers(0, 50), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5))
def test_a_plain_loop_over_pairs(seed: int, n: int, m: int, width: int) -> None:
    x, y = normal(seed, n, width).numpy(), normal(seed + 1, m, width, 0.5).numpy()

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((np.dot(a, b) / width + 1) ** 3)

    own = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    others = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(k(a, b) for a in x for b in y) / (n * m)
    found = discrepancy(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(own + others - 2 * across, rel=1e-9, abs=1e-9)


def test_unbiased_where_both_are_alike() -> None:
    found = [kernel_distance(normal(2 * k, 40, 3), normal(2 * k + 1, 40, 3), subsets=5).mean for k in range(60)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / 60**0.5


def test_the_same_each_time_and_half_of_a_small_set() -> None:
    x, y = normal(0, 30, 4), normal(1, 50, 4)
    assert kernel_distance(x, y) == kernel_distance(x, y) and kernel_distance(x, y).size == 15
    with pytest.raises(ValueError, match="of 3 pictures; allowed: four or more"):
        kernel_distance(x[:3], y)


class Seen(torch.nn.Module):
    """To torchmetrics a network whose features are what it is shown."""

    num_features = 8

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.filterwarnings("ignore:Metric `.*` will save all extracted features")
def test_as_torchmetrics_has_it() -> None:
    drawn, real = normal(0, 300, 8, 0.2, 1.1).float(), normal(1, 300, 8).float()
    kid = KernelInceptionDistance(feature=Seen(), subsets=1, subset_size=300)
    fid = FrechetInceptionDistance(feature=Seen())
    for metric in (kid, fid):
        metric.update(real, real=True)
        metric.update(drawn, real=False)
    assert discrepancy(drawn.double(), real.double()) == pytest.approx(float(kid.compute()[0]), rel=1e-3)
    assert frechet_distance(drawn, real) == pytest.approx(float(fid.compute()), rel=1e-3)
