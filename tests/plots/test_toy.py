"""The exact denoiser against Bayes' rule on samples, and the particles against the data's moments."""

from __future__ import annotations

import pytest
import torch

from fromnoise.diffusion.path import VP, Cosine, Linear, Path
from fromnoise.diffusion.target import TARGETS
from fromnoise.plots.toy import PARTICLES, TOYS, Mixture, best, figure, velocity, ways
from fromnoise.recipes import named

PATHS = [Linear(), Cosine(), VP()]
POINTS = torch.tensor([[0.0, 0.0], [0.7, -0.3], [-1.1, 0.6], [0.2, 1.4]], dtype=torch.float64)
paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.type)


@paths
def test_denoised_is_the_mean_of_samples_weighed_by_how_well_they_explain_x(path: Path) -> None:
    mixture = TOYS["moons"]()
    x0 = mixture.sample(200_000, torch.Generator().manual_seed(0))  # (n, 2)
    coefs = path(torch.full((4,), 0.6, dtype=torch.float64))
    away = (POINTS[:, None] - coefs.alpha[:, None, None] * x0).square().sum(-1)  # (4, n)
    share = (-away / (2 * coefs.sigma[:, None] ** 2)).softmax(1)
    assert torch.allclose(mixture.denoised(coefs, POINTS), share @ x0, atol=0.02)


@paths
def test_one_gaussian_has_the_known_velocity(path: Path) -> None:
    mixture, t = Mixture(torch.zeros(1, 2, dtype=torch.float64), 0.5), 0.4
    c = path(torch.tensor([t], dtype=torch.float64))
    known = (c.d_alpha * c.alpha * 0.25 + c.d_sigma * c.sigma) / (c.alpha**2 * 0.25 + c.sigma**2) * POINTS
    for target in TARGETS.values():
        assert torch.allclose(velocity(best(mixture, path, target), path, POINTS, t), known)


@pytest.mark.parametrize("toy", TOYS)
def test_samples_have_the_mixtures_moments(toy: str) -> None:
    mixture = TOYS[toy]()
    x = mixture.sample(100_000, torch.Generator().manual_seed(0))
    mean, covariance = mixture.moments()
    assert torch.allclose(x.mean(0), mean, atol=0.02)
    assert torch.allclose(x.T.cov(), covariance, atol=0.02)


@paths
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
def test_particles_end_as_data(path: Path, sampler: str) -> None:
    mixture = TOYS["gaussians"]()
    x = ways(mixture, path, TARGETS["v"], 3000, seed=0, sampler=sampler)
    mean, covariance = mixture.moments()
    assert x.shape == (61, 3000, 2)
    assert torch.allclose(x[0].T.cov(), torch.eye(2, dtype=torch.float64), atol=0.1)
    assert torch.allclose(x[-1].mean(0), mean, atol=0.1)
    assert torch.allclose(x[-1].T.cov(), covariance, atol=0.12)
    nearest = torch.cdist(x[-1], mixture.means).min(1).values
    assert float(nearest.square().mean() / 2) == pytest.approx(mixture.std**2, rel=0.25)  # and not between them


def test_density_is_normalised() -> None:
    side = torch.linspace(-6, 6, 121, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    coefs = Linear()(torch.full((len(points),), 0.5, dtype=torch.float64))
    density = TOYS["gaussians"]().log_likelihoods(coefs, points).logsumexp(1).exp()
    assert float(density.sum()) * 0.1**2 == pytest.approx(1, rel=1e-3)


def test_the_figure_has_the_runs_path_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fromnoise.plots.toy.TIMES", (0.3,))
    drawn = figure(named("sd1").model, "gaussians")
    assert len(drawn.axes) == 3 * 2
    assert [drawn.axes[2 * row].get_ylabel() for row in range(3)] == ["vp (this run)", "linear", "cosine"]
    assert len(drawn.axes[1].collections[1].get_offsets()) == PARTICLES  # type: ignore[arg-type]
