"""How near a reconstruction is to its picture, and what latents are like.

Legend: B batch, N latents, C channels of the picture, Z channels of the latent, H and W rows and columns of the
picture, h and w of the latent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.models.vae import VAE, Posterior

RANGE = 2.0  # of a pixel value, from -1 to 1
WINDOW, SIGMA = 11, 1.5  # side of the Gaussian window, and its standard deviation, in pixels (Wang et al. 2004)
K1, K2 = 0.01, 0.03  # of the constants that keep its quotients finite (ibid., section III-B)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of pictures (B, C, H, W) in [-1, 1], in dB: (B,)."""
    return 10 * torch.log10(RANGE**2 / (a - b).square().mean((1, 2, 3)))  # (B,)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, equation 13) of each pair of pictures (B, C, H, W) in [-1, 1]: (B,).

    Of pixel values moved to [0, 1], since black is zero to it: the mean over channels and over all places at which the
    whole window lies inside the picture. 1 for equal pictures.

    Raises:
        ValueError: one line, when a side is shorter than the window.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"pictures of {a.shape[-2]} x {a.shape[-1]} pixels; SSIM takes {WINDOW} or more a side")
    offset = torch.arange(WINDOW, device=a.device) - WINDOW // 2  # (WINDOW,)
    window = torch.softmax(-offset.float().square() / (2 * SIGMA**2), 0)  # (WINDOW,), of sum 1

    def blurred(x: Tensor) -> Tensor:
        x = x.flatten(0, 1)[:, None]  # (B C, 1, H, W)
        x = F.conv2d(F.conv2d(x, window[None, None, :, None]), window[None, None, None])  # (B C, 1, H - 10, W - 10)
        return x.unflatten(0, a.shape[:2]).squeeze(2)  # (B, C, H - 10, W - 10)

    a, b = (a + 1) / RANGE, (b + 1) / RANGE  # (B, C, H, W) each, in [0, 1]
    mean_a, mean_b = blurred(a), blurred(b)  # (B, C, H - 10, W - 10) each
    variance_a, variance_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    return (light * structure).mean((1, 2, 3))  # (B,)


def divergence(posterior: Posterior) -> Tensor:
    """KL divergence in nats of each latent value's posterior from the standard normal, (B, Z, h, w)."""
    mean, std = posterior.mean.float(), posterior.std.float()  # (B, Z, h, w) each
    return 0.5 * (mean.square() + std.square() - 1) - std.log()  # (B, Z, h, w)


def moments(z: Tensor) -> dict[str, list[float]]:
    """Mean, standard deviation and kurtosis (3 for a normal distribution) of latents (N, Z, h, w), by channel."""
    rows = z.double().transpose(0, 1).flatten(1)  # (Z, N h w)
    mean, std = rows.mean(1), rows.std(1, correction=0)  # (Z,) each
    kurtosis = ((rows - mean[:, None]) / std[:, None]).pow(4).mean(1)  # (Z,)
    return {"latent_mean": mean.tolist(), "latent_std": std.tolist(), "latent_kurtosis": kurtosis.tolist()}


@torch.no_grad()
def quality(vae: VAE, samples: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """How well `vae` reconstructs pictures from their posterior's mean, and what its latents are like.

    samples: parts, pictures (B, C, H, W) in [-1, 1] and noise (B, Z, h, w) to draw their latents with.

    Gives the means over pictures of the squared error of a pixel value, PSNR in dB, SSIM, and KL in nats a latent
    value; and `moments` of draws.
    """
    told: dict[str, list[Tensor]] = {key: [] for key in ("squared_error", "psnr", "ssim", "kl")}
    drawn = []
    for part in samples:
        images, eps = (x.to(next(vae.parameters()).device) for x in part)
        posterior = vae.encode(images)  # (B, Z, h, w) twice
        made = vae.decode(posterior.mean).float().clamp(-1, 1)  # (B, C, H, W)
        told["squared_error"].append((made - images).square().mean((1, 2, 3)))  # (B,), as what follows
        told["psnr"].append(psnr(made, images))
        told["ssim"].append(ssim(made, images))
        told["kl"].append(divergence(posterior).mean((1, 2, 3)))
        drawn.append((posterior.mean + posterior.std * eps).cpu())  # (B, Z, h, w)
    return {key: float(torch.cat(parts).mean()) for key, parts in told.items()} | moments(torch.cat(drawn))
