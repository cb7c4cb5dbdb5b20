"""What a model costs: its parameters, and the floating-point operations of one sample."""

from __future__ import annotations

import torch

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.flops import count_flops
from fromnoise.pipeline.pipeline import Pipeline


def parameters(pipeline: Pipeline) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in pipeline.parameters())


def flops(pipeline: Pipeline) -> int:
    """Operations (`count_flops`) of one forward of one sample, conditioner and backbone. Guidance takes two forwards a
    step, training about three times one forward."""
    config, device = pipeline.config, pipeline.device
    z = torch.zeros(1, *pipeline.latent_shape(config.size, config.size), device=device)  # (1, C, H, W)
    features = _features(pipeline)
    t = torch.full((1,), 0.5, device=device)  # (1,)
    # With gradients: without, the counter trips over views.
    return count_flops(lambda: pipeline.backbone(z, t, pipeline.conditioner(features)))


def training_flops(pipeline: Pipeline) -> int:
    """Operations of one sample of an optimizer step, forward and backward. Gradients are left at zero."""
    config, device = pipeline.config, pipeline.device
    z = torch.zeros(1, *pipeline.latent_shape(config.size, config.size), device=device)  # (1, C, H, W)
    t, keep = torch.full((1,), 0.5, device=device), torch.ones(1, dtype=torch.bool, device=device)
    features = _features(pipeline)
    counted = count_flops(lambda: pipeline.loss(z, features, t, z, keep).sum().backward())
    pipeline.zero_grad()
    return counted


def reconstruction_flops(model: Autoencoder, side: int) -> int:
    """Operations of an optimizer step on one square picture of `side` pixels, before a discriminator is asked.
    Gradients are left at zero."""
    images = torch.zeros(1, model.config.vae.channels, side, side, device=model.device)  # (1, C, H, W)
    eps = torch.zeros(1, *model.latent_shape(side, side), device=model.device)  # (1, Z, h, w)
    counted = count_flops(lambda: model.loss(images, eps, 0).sum().backward())
    model.zero_grad()
    return counted


def _features(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    features = pipeline.conditioner.encode([""], torch.zeros(1, dtype=torch.int64))
    return {key: value.to(pipeline.device) for key, value in features.items()}
