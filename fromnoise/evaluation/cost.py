"""What a model costs: its parameters, and the floating-point operations of one sample."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.pipeline.pipeline import Pipeline


def parameters(pipeline: Pipeline) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in pipeline.parameters())


def flops(pipeline: Pipeline) -> int:
    """Operations of one forward of one sample, conditioner and backbone: two for each multiplication with addition.

    Matrix products, convolutions and attention count, as is usual; what is done element by element does not. Guidance
    takes two forwards a step, training about three times one forward.
    """
    config, device = pipeline.config, pipeline.device
    z = torch.zeros(1, *pipeline.latent_shape(config.size, config.size), device=device)  # (1, C, H, W)
    features = _features(pipeline)
    with _counter() as counter, sdpa_kernel(SDPBackend.MATH):  # with gradients: without, the counter trips over views
        pipeline.backbone(z, torch.full((1,), 0.5, device=device), pipeline.conditioner(features))
    return counter.get_total_flops()


def training_flops(pipeline: Pipeline) -> int:
    """Operations of one sample of an optimizer step, forward and backward. Gradients are left at zero."""
    config, device = pipeline.config, pipeline.device
    z = torch.zeros(1, *pipeline.latent_shape(config.size, config.size), device=device)  # (1, C, H, W)
    t, keep = torch.full((1,), 0.5, device=device), torch.ones(1, dtype=torch.bool, device=device)
    features = _features(pipeline)
    with _counter() as counter, sdpa_kernel(SDPBackend.MATH):
        pipeline.loss(z, features, t, z, keep).sum().backward()
    pipeline.zero_grad()
    return counter.get_total_flops()


def reconstruction_flops(model: Autoencoder, side: int) -> int:
    """Operations of an optimizer step on one square picture of `side` pixels, before a discriminator is asked.
    Gradients are left at zero."""
    images = torch.zeros(1, model.config.vae.channels, side, side, device=model.device)  # (1, C, H, W)
    eps = torch.zeros(1, *model.latent_shape(side, side), device=model.device)  # (1, Z, h, w)
    with _counter() as counter, sdpa_kernel(SDPBackend.MATH):
        model.loss(images, eps, 0).sum().backward()
    model.zero_grad()
    return counter.get_total_flops()


def _features(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    features = pipeline.conditioner.encode([""], torch.zeros(1, dtype=torch.int64))
    return {key: value.to(pipeline.device) for key, value in features.items()}


def _counter() -> FlopCounterMode:
    # Beside it attention runs as plain products: the counter knows no fused kernel of a CPU, and would count nothing.
    return FlopCounterMode(display=False)
