"""How fresh blocks begin, and what a model hears that it should not. Legend: B batch, L tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.subject import Subject
from fromnoise.doctor.watch import Logits, answer
from fromnoise.pipeline.pipeline import Pipeline

LARGEST_LEAK = 1e-4  # relative change of the answer: rounding is below 1e-6
LARGEST_CHANGE = 0.25
"""Of a fresh block's input, as a share of it. adaLN-Zero makes it 0 (DiT, section 3.2), PixArt's gates, which start
near 0, .05; blocks without gates, or whose gates start anywhere, change their input by .4 to all of it."""
LARGEST_ANSWER = 2.0  # of a fresh model, where pictures and noise have size 1
LARGEST_LOGIT = 100.0
"""A softmax of such logits is one-hot, and gives no gradient: Kimi K2 (2025) clips queries and keys there, and ViT-22B
(Dehghani et al. 2023) diverged as they grew beyond."""


@torch.no_grad()
def condition(model: Pipeline, features: dict[str, Tensor]) -> Cond:
    """What the backbone is told, with every other prompt replaced by nothing."""
    cond = model.conditioner(features)
    n = len(cond.tokens)
    return cond.where(torch.arange(n) % 2 == 0, model.conditioner.null(n))


def padding(subject: Subject) -> Finding:
    """Change of the answer as padding of the text is replaced by noise."""
    name, model = "padding", subject.woken
    captions = [*subject.batch.captions, ""]
    labels = torch.cat((subject.batch.labels, subject.batch.labels[:1]))
    features = model.conditioner.encode(captions, labels)
    with torch.no_grad():
        cond = model.conditioner(features)
    if bool(cond.mask.all()):
        return left_out(name, "no prompt is padded")
    generator = torch.Generator().manual_seed(0)
    noise = 10 * torch.randn(cond.tokens.shape, generator=generator)
    spoiled = Cond(torch.where(cond.mask[..., None], cond.tokens, noise), cond.mask, cond.vector)
    sample = subject.sample(model)
    rows = torch.arange(len(captions)) % len(sample.t)
    x, t = sample.eps[rows], sample.t[rows]
    leak = distance(answer(model, x, t, spoiled), answer(model, x, t, cond))
    with torch.no_grad():
        read = model.conditioner(overwritten(features))
    real = cond.mask[..., None]
    heard = max(distance(read.tokens * real, cond.tokens * real), distance(read.vector, cond.vector))
    return judged(
        name,
        leak < LARGEST_LEAK and heard < LARGEST_LEAK,
        f"noise in its place changes the backbone's answer by {leak:.2g}, the text encoder's by {heard:.2g} "
        f"({1 - float(cond.mask.float().mean()):.0%} of the tokens are padding)",
        "a model that attends to padding is told the length of the batch, and drawn from with another",
        "mask padding in every attention (nn.attention.bias_of), and pool over real tokens only",
    )


def overwritten(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """`features` with noise where they are masked; numbers of tokens become others."""
    masks = {key: value for key, value in features.items() if value.dtype == torch.bool}
    spoiled, generator = dict(features), torch.Generator().manual_seed(0)
    for key, mask in masks.items():
        for other, value in features.items():
            if other not in masks and value.shape[:2] == mask.shape and same_encoder(key, other):
                wide = mask.view(*mask.shape, *[1] * (value.ndim - 2))
                noise = torch.randint(2, 200, value.shape, generator=generator).to(value)
                spoiled[other] = torch.where(wide, value, noise)
    return spoiled


def same_encoder(mask: str, other: str) -> bool:
    """Whether the names of two features are of one encoder: "mask_0" and "tokens_0", or without numbers."""
    return mask.partition("_")[2] == other.partition("_")[2]


def distance(a: Tensor, b: Tensor) -> float:
    """Of a from b, as a share of b."""
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def fresh_blocks(subject: Subject) -> Finding:
    """What fresh blocks change of their input, and what the fresh model answers."""
    model, changes = subject.model, [0.0]
    sample = subject.sample(model)

    def look(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        after = output if isinstance(output, Tensor) else output[0]
        changes.append(distance(after, args[0]))

    blocks = [one for name, one in model.backbone.named_children() if name == "transformer_blocks"]
    hooks = [block.register_forward_hook(look) for stack in blocks for block in stack.children()]
    try:
        y = answer(model, sample.eps, sample.t, condition(model, sample.features))
    finally:
        for hook in hooks:
            hook.remove()
    size = float(y.square().mean().sqrt())
    return judged(
        "fresh blocks",
        max(changes) < LARGEST_CHANGE and size < LARGEST_ANSWER,
        f"{len(hooks)} transformer blocks change their input by {max(changes):.0%} at most, the answer has size "
        f"{size:.2g}",
        "blocks that start as the identity train deeper, sooner and at higher rates (adaLN-Zero: DiT, section 3.2)",
        "start the last layer at 0, and the layer that makes shifts, scales and gates, too",
    )


def logits(subject: Subject) -> Finding:
    """The largest attention logit: of the trained weights where there are some."""
    model = subject.trained or subject.model
    sample = subject.sample(model)
    with torch.no_grad(), Logits() as seen:
        model.loss(*sample)
    weights = "trained" if subject.trained else "fresh"
    return judged(
        "attention logits",
        seen.largest < LARGEST_LOGIT,
        f"{seen.largest:.3g} at most, of {weights} weights",
        "a softmax of such logits is one-hot: it passes no gradient, and in bfloat16 the loss soon breaks",
        "norm queries and keys (as mmdit does), or lower training.optimizer.lr",
    )
