"""Frechet distance between two sets of features, each taken for a normal distribution (Dowson and Landau 1982; with
the features of an Inception network it is FID, Heusel et al. 2017). Legend: N pictures, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """Mean and covariance of features, in float64."""

    mean: Tensor  # (D,)
    covariance: Tensor  # (D, D)


def gaussian(features: Tensor) -> Gaussian:
    """The normal distribution of features (N, D); the covariance divides by N - 1.

    Raises:
        ValueError: one line, when there are fewer than two, or some are not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)}; allowed: (N, D), N of two or more")
    if not features.isfinite().all():
        raise ValueError("features hold values that are not finite")
    wide = features.double()
    mean = wide.mean(0)
    centred = wide - mean  # (N, D)
    return Gaussian(mean, centred.T @ centred / (len(wide) - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    With C_a = R R^T, the product C_a C_b has the eigenvalues of R^T C_b R, which is symmetric and never negative: so
    the trace of its root is a sum of real roots, where a matrix square root of C_a C_b would turn complex on singular
    covariances. What rounding makes negative is 0.
    """
    values, vectors = torch.linalg.eigh(a.covariance)  # (D,), (D, D)
    root = vectors * values.clamp(min=0).sqrt()  # (D, D)
    shared = torch.linalg.eigvalsh(root.T @ b.covariance @ root).clamp(min=0).sqrt().sum()
    apart = ((a.mean - b.mean) ** 2).sum()
    return (apart + a.covariance.trace() + b.covariance.trace() - 2 * shared).clamp(min=0).item()


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The distance between features (N, D) and others (M, D).

    It is not 0 between two draws from one distribution: the fewer pictures, the higher it is. Compare only distances of
    equal N, and give the distance between real pictures and other real pictures (`floor`) beside them.
    """
    return frechet(gaussian(features), gaussian(reference))


def floor(real: Tensor, reference: Tensor, count: int, draws: int = 5) -> float:
    """The least that `count` pictures can be expected to reach: the mean distance of fixed draws from real ones.

    real: (N, D) features of real pictures that are not in `reference` (M, D).

    Raises:
        ValueError: one line, when there are fewer than `count` of them.
    """
    if count > len(real):
        raise ValueError(f"a floor of {count:,} pictures needs as many real ones; there are {len(real):,}")
    generator, against = torch.Generator().manual_seed(0), gaussian(reference)
    chosen = [torch.randperm(len(real), generator=generator)[:count] for _ in range(draws)]
    return sum(frechet(gaussian(real[rows]), against) for rows in chosen) / draws
