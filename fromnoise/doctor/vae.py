"""What a VAE is asked for. Legend: B batch, C, H, W channels and sides of a picture, Z, h, w of its latent."""

from __future__ import annotations

from pathlib import Path

import torch

from fromnoise.doctor.finding import Finding, judged
from fromnoise.doctor.subject import Subject
from fromnoise.space.folder import describe
from fromnoise.training.reconstruction import FOLDER

PICTURES = 4
LARGEST_BETA = 0.2
"""Of the divergence beside the squared error, both summed: sqrt(beta / 2) is the standard deviation by which it takes a
pixel value in [-1, 1] to be noisy. The recipes have .006 and .048 (.05 and .15 a pixel); 1e-5 of a summed divergence
beside a mean error is .49 (.5), and blurs."""


def kl_weight(subject: Subject) -> Finding:
    """The weight of the divergence in the units of a likelihood, sum of squares against sum of nats, from the loss."""
    model = subject.woken
    images = subject.served.train(0, PICTURES).images  # (B, C, H, W)
    eps = torch.zeros(len(images), *model.latent_shape(*images.shape[-2:]))
    with torch.no_grad():
        judgement, posterior = model.judged(images, eps), model.vae.encode(images)
        mean, std = posterior.mean, posterior.std  # (B, Z, h, w) each
        nats = (0.5 * (mean**2 + std**2 - 1) - std.log()).sum((1, 2, 3))  # (B,)
        squares = (judgement.made - images).square().sum((1, 2, 3))  # (B,)
        beta = float(((judgement.kl / nats) / (judgement.error / squares)).mean())
    return judged(
        "KL weight",
        beta < LARGEST_BETA,
        f"beta {beta:.3g} in sum of squares against sum of nats: a pixel value may be off by {(beta / 2) ** 0.5:.2g}",
        "a divergence that weighs more than detail does buys noise in the latents, and pictures come back blurred",
        "lower model.loss.kl, which weighs means against means; bring latents to size by scale, not by the divergence",
    )


def scale(subject: Subject) -> Finding | None:
    """The shift and scale that a finished VAE's folder tells."""
    folder = subject.directory / FOLDER if subject.directory else Path()
    if subject.directory is None or not folder.is_dir():
        return None
    told = describe(folder)
    known = told.shift is not None and told.scale is not None
    spread = [1 / one for one in told.scale or ()]
    return judged(
        "latent scale",
        known,
        f"std {min(spread):.2f} to {max(spread):.2f} by channel" if known else "none is stored",
        "latents whose scale is not told are taken to have one that they have not",
        "finish the training: it measures them, and writes them into the VAE's config.json",
    )
