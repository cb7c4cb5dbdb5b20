"""How a judge of pictures learns them. Legend: B batch, N pictures, C channels, S side."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.core.device import autocast, fast_bfloat16, keep_freed_memory
from fromnoise.data.labelled import scaled
from fromnoise.evaluation.judges.classifier import Classifier, Domain


def train(
    domain: Domain,
    images: Tensor,
    labels: Tensor,
    seed: int,
    epochs: int,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Classifier:
    """A network trained on pictures (N, C, S, S) uint8 with labels (N,).

    The same arguments give the same network on the same machine; products are in bfloat16 where that is faster.
    Each picture looks a little different in every epoch (`Domain.augment`). `report` is told the mean loss of every
    epoch, counted from 1.
    """
    dtype = torch.bfloat16 if fast_bfloat16(torch.device("cpu")) else None
    keep_freed_memory()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the layers draw their first weights from the global generator
        classifier = Classifier(domain)
    classifier.train()
    step = domain.optimizer(classifier)
    batches = len(labels) // domain.batch  # of an epoch; what is left over is left out
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        total = 0.0
        for k, rows in enumerate(order.split(domain.batch)[:batches]):
            seen = domain.augment(scaled(images[rows]), generator)  # (B, C, S, S)
            with autocast(seen.device, dtype):
                logits = classifier(seen).logits  # (B, K)
            loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=domain.smoothing)
            classifier.zero_grad()
            loss.backward()
            step(rate((epoch * batches + k) / (epochs * batches), domain.warmup))
            total += loss.item()
        report(epoch + 1, total / batches)
    return classifier.eval()


def rate(done: float, warmup: float) -> float:
    """The learning rate's share of its highest, when the share `done` of the steps is: a ramp, then half a cosine."""
    return done / warmup if done < warmup else (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2
