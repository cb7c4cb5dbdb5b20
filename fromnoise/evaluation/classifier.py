"""The judge of MNIST digits: a small convolutional network, which digit a picture shows and where it lies among digits.

Legend: B batch, N pictures, D features, S side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.device import autocast, fast_bfloat16, keep_freed_memory
from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.data.labelled import scaled

SIDE = 28
FEATURES = 128
ASSET = Path(str(files("fromnoise") / "assets" / "mnist_classifier.safetensors"))

BATCH = 128
LEARNING_RATE = 4e-3  # of AdamW at its highest
WEIGHT_DECAY = 0.05
WARMUP = 0.15  # share of the steps
TURN, SHEAR, STRETCH = math.radians(12), 0.15, 0.12  # furthest from none at all, as digits are written
SHIFT = 2.5 * 2 / SIDE  # 2.5 pixels, in units of half a side


class Judged(NamedTuple):
    """What the network sees in pictures."""

    logits: Tensor  # (B, 10)
    features: Tensor  # (B, D) what the last layer decides from


class DigitClassifier(nn.Module):
    """Five convolutions with batch norm, halved in size three times, averaged, then one linear layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *convolution(1, 32, 5, stride=2),  # 14 x 14
            *convolution(32, 64, 3, stride=2),  # 7 x 7
            *convolution(64, 64, 3),
            *convolution(64, 128, 3, stride=2),  # 4 x 4
            *convolution(128, FEATURES, 3),
        )
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, images: Tensor) -> Judged:
        """images: (B, 1, 28, 28) in [-1, 1]."""
        features = self.layers(images).mean((2, 3))  # (B, D)
        return Judged(self.head(features), features)

    @torch.inference_mode()
    def classify(self, images: Tensor, batch: int = 500) -> Judged:
        """Logits and features of pictures (N, 1, S, S) in [-1, 1]; of those padded to 32 pixels, the middle 28.

        Raises:
            ValueError: one line, for pictures that are no digits of 28 or 32 pixels, or bytes.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) not in ((1, SIDE, SIDE), (1, 32, 32)):
            raise ValueError(f"pictures of shape {tuple(images.shape)}; allowed: (N, 1, 28, 28) and (N, 1, 32, 32)")
        if not images.is_floating_point():
            raise ValueError(f"pictures of type {images.dtype}; allowed: floating point, black -1 and white 1")
        border = (images.shape[-1] - SIDE) // 2
        middle = images[..., border : border + SIDE, border : border + SIDE].float()  # (N, 1, 28, 28)
        parts = [self(part) for part in middle.split(batch)]
        return Judged(*map(torch.cat, zip(*parts, strict=True)))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)  # batch norm has the bias
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def train(
    images: Tensor,
    labels: Tensor,
    seed: int,
    epochs: int,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> DigitClassifier:
    """A network trained on digits (N, 1, 28, 28) uint8 with labels (N,).

    The same arguments give the same network on the same machine; products are in bfloat16 where that is faster.
    Each picture is turned, sheared, stretched and shifted a little, another way in every epoch. `report` is told the
    mean loss of every epoch, counted from 1.
    """
    dtype = torch.bfloat16 if fast_bfloat16(torch.device("cpu")) else None
    keep_freed_memory()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the layers draw their first weights from the global generator
        model = DigitClassifier()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / steps))
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(labels), generator=generator)
        total = 0.0
        for rows in order.split(BATCH)[: len(labels) // BATCH]:
            moved = jiggle(scaled(images[rows]), generator)  # (B, 1, 28, 28)
            with autocast(moved.device, dtype):
                logits = model(moved).logits  # (B, 10)
            loss = F.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        report(epoch, total / (len(labels) // BATCH))
    return model.eval()


def rate(done: float) -> float:
    """The learning rate's share of its highest, when the share `done` of the steps is: a ramp, then half a cosine."""
    return done / WARMUP if done < WARMUP else (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP))) / 2


def jiggle(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture (B, 1, S, S) in [-1, 1] turned, sheared, stretched and shifted by chance; black comes in."""
    chance = torch.rand(6, len(images), generator=generator) * 2 - 1  # (6, B) in [-1, 1)
    turn, shear, wide, high, right, down = chance * torch.tensor(
        [[TURN], [SHEAR], [STRETCH], [STRETCH], [SHIFT], [SHIFT]]
    )
    cos, sin = turn.cos(), turn.sin()
    rows = [(1 + wide) * cos, shear - sin, right, sin, (1 + high) * cos, down]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)  # (B, S, S, 2)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # beyond the edge it reads 0, which is to be black


def accuracy(model: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """Share of digits (N, 1, S, S) uint8 that are recognised."""
    return (model.classify(scaled(images)).logits.argmax(1) == labels).double().mean().item()


def digest(images: Tensor, labels: Tensor) -> str:
    """sha256 (hex) of the digits and labels trained on."""
    content = hashlib.sha256(images.contiguous().numpy().data)
    content.update(labels.contiguous().numpy().data)
    return content.hexdigest()


def save(model: DigitClassifier, path: Path, metadata: dict[str, str]) -> None:
    """Write the weights and what is to be known of them, whole or not at all."""
    save_tensors(path, model.state_dict(), metadata)


def load(path: Path = ASSET) -> tuple[DigitClassifier, dict[str, str]]:
    """The network of a file that `save` wrote (the one that comes with fromnoise), and what is known of it.

    Raises:
        ValueError: one line, when the file is missing, damaged or holds another network.
    """
    tensors, metadata = load_tensors(path)
    with torch.device("meta"):  # no weights are drawn, from anybody's generator
        model = DigitClassifier()
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no digit classifier: {' '.join(str(error).split())}") from None
    return model.eval(), metadata
