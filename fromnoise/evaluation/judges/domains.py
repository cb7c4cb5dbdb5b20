"""The judges there are: of MNIST's digits and of CIFAR-10's photographs. Legend: B batch, S side."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fromnoise.data import cifar10, mnist
from fromnoise.data.config import CIFAR10Config, MNISTConfig
from fromnoise.evaluation.judges.classifier import Domain
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import Muon

ASSETS = Path(str(files("fromnoise") / "assets"))
TURN, SHEAR, STRETCH = math.radians(12), 0.15, 0.12  # furthest from none at all, as digits are written
SHIFT = 2.5 * 2 / mnist.NATIVE  # 2.5 pixels, in units of half a side
PADDING = 4  # pixels that a photograph is moved at most, as He et al. 2016


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)  # batch norm has the bias
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def pooled(inputs: int, outputs: int) -> list[nn.Module]:
    """A convolution whose answer is halved in size before it is normalised, which costs a quarter so."""
    conv, *rest = convolution(inputs, outputs, 3)
    return [conv, nn.MaxPool2d(2), *rest]


def digit_layers() -> list[nn.Module]:
    """Five convolutions with batch norm, halved in size three times."""
    return [
        *convolution(1, 32, 5, stride=2),  # 14 x 14
        *convolution(32, 64, 3, stride=2),  # 7 x 7
        *convolution(64, 64, 3),
        *convolution(64, 128, 3, stride=2),  # 4 x 4
        *convolution(128, 128, 3),
    ]


def photo_layers() -> list[nn.Module]:
    """Seven convolutions with batch norm, halved in size three times: a narrow one of the networks that win races to
    94 % on CIFAR-10 (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU")."""
    return [
        *convolution(3, 32, 3),  # 32 x 32
        *pooled(32, 48),  # 16 x 16
        *convolution(48, 48, 3),
        *pooled(48, 128),  # 8 x 8
        *convolution(128, 128, 3),
        *pooled(128, 192),  # 4 x 4
        *convolution(192, 192, 3),
    ]


def jiggle(images: Tensor, generator: Generator) -> Tensor:
    """Each digit (B, 1, S, S) in [-1, 1] turned, sheared, stretched and shifted by chance; black comes in."""
    chance = torch.rand(6, len(images), generator=generator) * 2 - 1  # (6, B) in [-1, 1)
    turn, shear, wide, high, right, down = chance * torch.tensor(
        [[TURN], [SHEAR], [STRETCH], [STRETCH], [SHIFT], [SHIFT]]
    )
    cos, sin = turn.cos(), turn.sin()
    rows = [(1 + wide) * cos, shear - sin, right, sin, (1 + high) * cos, down]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)  # (B, S, S, 2)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # beyond the edge it reads 0, which is to be black


def crop_and_flip(images: Tensor, generator: Generator) -> Tensor:
    """Each photograph (B, 3, S, S) moved by up to `PADDING` pixels, its edge mirrored outwards, and half of them
    mirrored left to right. Channels lie last in memory: convolutions in bfloat16 are 1.7 times as fast so."""
    count, side = len(images), images.shape[-1]
    wide = F.pad(images, [PADDING] * 4, mode="reflect")  # (B, 3, S + 8, S + 8)
    down, right = torch.randint(2 * PADDING + 1, (2, count, 1), generator=generator)  # (B, 1) each
    mirror = torch.rand(count, 1, generator=generator) < 0.5  # (B, 1)
    places = torch.arange(side)
    rows = down + places  # (B, S)
    columns = right + torch.where(mirror, side - 1 - places, places)  # (B, S)
    every = torch.arange(count)[:, None, None]  # (B, 1, 1)
    return wide[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)


def by_adamw(model: nn.Module) -> Callable[[float], None]:
    highest = 4e-3
    optimizer = torch.optim.AdamW(model.parameters(), highest, weight_decay=0.05, fused=True)

    def step(share: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = highest * share
        optimizer.step()

    return step


def by_muon(model: nn.Module) -> Callable[[float], None]:
    """Batch norm makes a convolution's size of no account: this decay holds it where each update turns it by about a
    fifth at the highest rate."""
    return Optimizer(model, Muon(lr=0.02, adamw_lr=0.01, momentum=0.6, weight_decay=1.0)).step


DIGITS = Domain(
    name="digits",
    channels=1,
    sides=(mnist.NATIVE, 32),
    classes=mnist.WORDS,
    said=[[f"a handwritten {word}"] for word in mnist.WORDS],
    layers=digit_layers,
    features=128,
    asset=ASSETS / "mnist_classifier.safetensors",
    published=lambda: MNISTConfig().build(0),
    reference="test",
    learned=55_000,
    batch=128,
    warmup=0.15,
    smoothing=0.0,
    augment=jiggle,
    optimizer=by_adamw,
)
PHOTOS = Domain(
    name="photos",
    channels=3,
    sides=(32,),
    classes=cifar10.CLASSES,
    said=cifar10.SAID,
    layers=photo_layers,
    features=192,
    asset=ASSETS / "cifar10_classifier.safetensors",
    published=lambda: CIFAR10Config().build(0),
    reference="validation",
    learned=10_000,
    batch=500,
    warmup=0.15,
    smoothing=0.1,
    augment=crop_and_flip,
    optimizer=by_muon,
)
DOMAINS = {"mnist": DIGITS, "cifar10": PHOTOS}
"""What there are judges of, by the type of the data set."""
