"""Judges of pictures: small convolutional networks, which class a picture shows and where it lies among its like.

Legend: B batch, N pictures, C channels, S side, K classes, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.data.labelled import LabelledData, scaled


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a judge knows: the pictures, the network that tells their classes apart, and how it learns them."""

    name: str
    """What the pictures are, in the plural: "digits"."""
    channels: int
    sides: tuple[int, ...]
    """Of the pictures that are taken: the network's own, then larger ones, of which the middle is looked at."""
    classes: Sequence[str]
    """Their names."""
    said: Sequence[Sequence[str]]
    """Captions of each class, to ask a model of words for it."""
    layers: Callable[[], list[nn.Module]]
    """The network up to the features, (B, C, S, S) to (B, D, h, w), which are averaged over places."""
    features: int
    asset: Path
    """The trained network that comes with fromnoise."""
    published: Callable[[], LabelledData]
    """The data set, where it is found without being told."""
    reference: str
    """The split that drawn pictures are compared with."""
    learned: int
    """Pictures of those trained on, the first, that the floor and the diversity are taken from."""
    batch: int
    warmup: float
    """Share of the steps over which the learning rate rises."""
    smoothing: float
    """Share of a label that is spread over all classes (Szegedy et al. 2016)."""
    augment: Callable[[Tensor, Generator], Tensor]
    """Another sight of each picture (B, C, S, S) in [-1, 1]."""
    optimizer: Callable[[nn.Module], Callable[[float], None]]
    """Of a network, a step at a share of the highest learning rate."""

    @property
    def side(self) -> int:
        """Of the pictures that the network sees, in pixels."""
        return self.sides[0]


class Judged(NamedTuple):
    """What the network sees in pictures."""

    logits: Tensor  # (B, K)
    features: Tensor  # (B, D) what the last layer decides from


class Classifier(nn.Module):
    """The layers of a domain, averaged over places, then one linear layer."""

    def __init__(self, domain: Domain):
        super().__init__()
        self.domain = domain
        self.layers = nn.Sequential(*domain.layers())
        self.head = nn.Linear(domain.features, len(domain.classes))

    def forward(self, images: Tensor) -> Judged:
        """images: (B, C, S, S) in [-1, 1]."""
        features = self.layers(images).mean((2, 3))  # (B, D)
        return Judged(self.head(features), features)

    @torch.inference_mode()
    def classify(self, images: Tensor, batch: int = 100) -> Judged:
        """Logits and features of pictures (N, C, S, S) in [-1, 1]; of larger ones that are taken, of their middle.

        Raises:
            ValueError: one line, for pictures of another shape, or bytes.
        """
        domain, side = self.domain, self.domain.side
        shapes = [(domain.channels, known, known) for known in domain.sides]
        if images.ndim != 4 or tuple(images.shape[1:]) not in shapes:
            allowed = " and ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes)
            raise ValueError(f"pictures of shape {tuple(images.shape)} are no {domain.name}; allowed: {allowed}")
        if not images.is_floating_point():
            raise ValueError(f"pictures of type {images.dtype}; allowed: floating point, black -1 and white 1")
        border = (images.shape[-1] - side) // 2
        middle = images[..., border : border + side, border : border + side].float()  # (N, C, S, S)
        parts = [self(part) for part in middle.split(batch)]
        return Judged(*map(torch.cat, zip(*parts, strict=True)))


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of pictures (N, C, S, S) uint8 that are recognised."""
    return (classifier.classify(scaled(images)).logits.argmax(1) == labels).double().mean().item()


def digest(images: Tensor, labels: Tensor) -> str:
    """sha256 (hex) of the pictures and labels trained on."""
    content = hashlib.sha256(images.contiguous().numpy().data)
    content.update(labels.contiguous().numpy().data)
    return content.hexdigest()


def save(classifier: Classifier, path: Path, metadata: dict[str, str]) -> None:
    """Write the weights and what is to be known of them, whole or not at all."""
    save_tensors(path, classifier.state_dict(), metadata)


def load(domain: Domain, path: Path | None = None) -> tuple[Classifier, dict[str, str]]:
    """The network of a file that `save` wrote (left out, the one that comes with fromnoise), and what is known of it.

    Raises:
        ValueError: one line, when the file is missing, damaged or holds another network.
    """
    path = path or domain.asset
    tensors, metadata = load_tensors(path)
    with torch.device("meta"):  # no weights are drawn, from anybody's generator
        classifier = Classifier(domain)
    try:
        classifier.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no classifier of {domain.name}: {' '.join(str(error).split())}") from None
    return classifier.eval(), metadata
