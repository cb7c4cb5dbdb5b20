"""What sees pictures: a feature extractor turns each into a row of numbers, in which sets of pictures are compared.

Legend: N pictures, B batch, C channels, H height, W width, S side, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.conditioning.folder import hub_name
from fromnoise.core.config import hint
from fromnoise.core.files import content_hash, file_hash
from fromnoise.evaluation.features.inception import SIDE, read_inception, resized
from fromnoise.evaluation.judges import classifier
from fromnoise.evaluation.judges.classifier import Domain
from fromnoise.evaluation.judges.domains import DOMAINS

CELLS = 16  # along the side of the grid that `pixels` averages over


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A frozen network, or none, and how it is shown pictures."""

    name: str
    weights: str
    """sha256 (hex) of its weights; "" where it has none."""
    preprocessing: dict[str, Any]
    """What is done to a picture before."""
    see: Callable[[Tensor], Tensor]
    """Pictures (B, C, H, W) in [-1, 1] -> features (B, D) on the CPU, float32."""
    read: Callable[[Sequence[str]], Tensor] | None = None
    """Texts -> (T, D) in the same space, where it has one of both (CLIP)."""
    slow: bool = True
    """Whether features of real pictures are worth keeping."""

    @property
    def sha256(self) -> str:
        """What its features hang on: the weights and the preprocessing."""
        return hashlib.sha256(json.dumps([self.weights, self.preprocessing], sort_keys=True).encode()).hexdigest()

    def features(
        self, batches: Iterable[Tensor], total: int, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Tensor:
        """Of pictures in batches (B, C, H, W), `total` of them, all features (N, D)."""
        parts, done = [], 0
        for images in batches:
            parts.append(self.see(images))
            done += len(images)
            progress(done, total)
        return torch.cat(parts)


def extractor_of(name: str, device: torch.device) -> Extractor:
    """The extractor that a user calls `name`: pixels, a domain's classifier, Inception's file, or the folder or the
    hub's owner/name of a CLIP, a DINO or any other vision model of transformers.

    Raises:
        ValueError: one line, when there is none of that name, or it cannot be read.
    """
    if name == "pixels":
        return pixels()
    if name in DOMAINS:
        return by_classifier(DOMAINS[name])
    if name.endswith(".safetensors"):
        return by_inception(Path(name), device)
    if Path(name).is_dir() or hub_name(name):
        from fromnoise.evaluation.features.vision import by_vision_model

        return by_vision_model(name, device)
    others = "the folder or owner/name of a CLIP or DINO, Inception's .safetensors"
    raise ValueError(f"nothing sees pictures at {name!r}; {hint(name, [others, 'auto', 'pixels', *DOMAINS])}")


def pixels() -> Extractor:
    """The picture itself, averaged over a grid of cells: no network, and so no meaning, but copies are copies in it."""

    def see(images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images.float().cpu(), CELLS).flatten(1)  # (B, C cells cells)

    return Extractor(name="pixels", weights="", preprocessing={"cells": CELLS}, see=see, slow=False)


def by_classifier(domain: Domain) -> Extractor:
    """What the classifier of `domain` decides from; other pictures are resized to its side."""
    network = classifier.load(domain)[0]

    def see(images: Tensor) -> Tensor:
        shown = images.float().cpu()  # (B, C, H, W)
        if shown.shape[1] == 1 < domain.channels:
            shown = shown.expand(-1, domain.channels, -1, -1)
        if tuple(shown.shape[-2:]) not in [(side, side) for side in domain.sides]:
            shown = F.interpolate(shown, (domain.side, domain.side), mode="bilinear", antialias=True)  # (B, C, S, S)
        return network.classify(shown).features  # (B, D)

    name = next(kind for kind, known in DOMAINS.items() if known is domain)
    how = {"resize": domain.side, "filter": "bilinear, antialiased", "kept": list(domain.sides)}
    return Extractor(name=name, weights=content_hash(domain.asset), preprocessing=how, see=see, slow=False)


def by_inception(file: Path, device: torch.device) -> Extractor:
    """The last features of FID's own network, in the file of its weights."""
    network = read_inception(file).to(device)

    @torch.inference_mode()
    def see(images: Tensor) -> Tensor:
        levels = rounded(images.to(device).expand(-1, 3, -1, -1))  # (B, 3, H, W) 0 to 255
        return network((resized(levels) - 128) / 128).float().cpu()  # (B, 2048)

    how = {"resize": SIDE, "filter": "bilinear as TensorFlow 1", "levels": "(x - 128) / 128"}
    return Extractor(name="inception", weights=file_hash(file), preprocessing=how, see=see)


def rounded(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] at the levels 0 to 255 of a file, in floating point."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255)
