"""CLIPScore (Hessel et al. 2021): how well a picture and a caption go together, to a CLIP. Legend: N pictures, D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fromnoise.evaluation.features.extractor import Extractor

WEIGHT, PREFIX = 2.5, "A photo depicts "  # as the paper has them


def scores(seen: Tensor, read: Tensor) -> Tensor:
    """2.5 max(cos, 0) of pictures (N, D) and captions (N, D), pair by pair: (N,)."""
    return WEIGHT * F.cosine_similarity(seen.double(), read.double(), dim=1).clamp(min=0)


def clipscore(
    extractor: Extractor, drawn: Tensor, prompts: Sequence[str], real: Tensor, captions: Sequence[str]
) -> dict[str, Any]:
    """CLIPScore of drawn features (N, D) with their prompts; of them with the next one's prompt, which is what a model
    reaches that does not listen; and of real features (M, D) with their own captions. Plain numbers for JSON.

    cosine: the mean of 100 max(cos, 0) with the prompts as they are, which others call CLIPScore.
    """
    assert extractor.read is not None, "who asks has a CLIP"
    asked, said = (extractor.read([PREFIX + text for text in texts]) for texts in (prompts, captions))
    own = scores(drawn, asked)  # (N,)
    return {
        "extractor": extractor.name,
        "sha256": extractor.sha256,
        "samples": len(drawn),
        "clipscore": own.mean().item(),
        "deviation": own.std(correction=0).item(),
        "shuffled": scores(drawn, asked.roll(1, 0)).mean().item(),
        "real": scores(real, said).mean().item(),
        "real_samples": len(real),
        "cosine": 100 / WEIGHT * scores(drawn, extractor.read(list(prompts))).mean().item(),
    }
