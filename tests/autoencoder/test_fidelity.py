"""PSNR, SSIM, divergence and moments against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Normal, kl_divergence

from fromnoise.autoencoder.fidelity import divergence, moments, psnr, quality, ssim
from fromnoise.models.config import VAEConfig
from fromnoise.models.vae import VAE, Posterior


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window, as Wang et al. 2004 write it, with bytes of which 255 is the largest: (H, W) each."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def test_ssim_is_that_of_its_authors() -> None:
    a = pictures(2, 3, 14, 17)
    b = (a + 0.3 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    found = ssim(a, b)
    bytes_a, bytes_b = ((127.5 * (x + 1)).numpy() for x in (a, b))  # the paper's own units
    expected = [np.mean([plain_ssim(bytes_a[i, c], bytes_b[i, c]) for c in range(3)]) for i in range(2)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)
    torch.testing.assert_close(ssim(a, a), torch.ones(2))


def test_pictures_smaller_than_the_window_have_no_ssim() -> None:
    with pytest.raises(ValueError, match="pictures of 10 x 12 pixels; SSIM takes 11 or more a side"):
        ssim(pictures(1, 1, 10, 12), pictures(1, 1, 10, 12))


def test_psnr_is_of_the_whole_range_and_of_each_picture() -> None:
    a = pictures(2, 3, 8, 8) * 0.5
    b = a + torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(psnr(a, b), torch.tensor([20 * math.log10(2 / 0.1), 20 * math.log10(2 / 0.2)]))


def test_divergence_is_torch_s_own() -> None:
    mean, std = pictures(2, 4, 3, 3), pictures(2, 4, 3, 3).abs() + 0.1
    torch.testing.assert_close(divergence(Posterior(mean, std)), kl_divergence(Normal(mean, std), Normal(0.0, 1.0)))


def test_moments_are_by_channel() -> None:
    z = pictures(5, 2, 4, 4) ** 3 * torch.tensor([1.0, 5.0]).reshape(2, 1, 1) + torch.tensor([0.0, 2.0]).reshape(
        2, 1, 1
    )
    told = moments(z)
    for c in range(2):
        values = z[:, c].flatten().double().numpy()
        assert told["latent_mean"][c] == pytest.approx(values.mean())
        assert told["latent_std"][c] == pytest.approx(values.std())
        assert told["latent_kurtosis"][c] == pytest.approx(scipy.stats.kurtosis(values, fisher=False))


@torch.no_grad()
def test_quality_is_a_mean_over_pictures_however_they_are_parted() -> None:
    torch.manual_seed(0)
    vae = VAE(VAEConfig(width=8, multipliers=(1, 2), layers=1, groups=4))
    images, eps = pictures(5, 3, 12, 16), torch.randn(5, 4, 6, 8)
    told = quality(vae, [(images, eps)])
    parted = quality(vae, zip(images.split(2), eps.split(2), strict=True))
    for key, value in told.items():
        assert parted[key] == pytest.approx(value, rel=1e-4)
    mean, std = vae.encode(images)
    made = vae.decode(mean).clamp(-1, 1)
    assert told["squared_error"] == pytest.approx((made - images).square().mean().item())
    assert told["psnr"] == pytest.approx(psnr(made, images).mean().item())
    assert told["ssim"] == pytest.approx(ssim(made, images).mean().item(), abs=1e-6)
    assert told["latent_mean"] == pytest.approx(moments(mean + std * eps)["latent_mean"])
