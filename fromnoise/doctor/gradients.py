"""What in a model learns, what does nothing, and what it hears that it should not.

Legend: B batch, L tokens, D width, C channels, H height, W width.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fromnoise
from fromnoise.core.config import Config
from fromnoise.core.types import Cond
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.subject import Subject, draw
from fromnoise.doctor.watch import Logits, answer, fields_read
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import Run, VAERun
from fromnoise.training.step import accumulate_gradients

LARGEST_LEAK = 1e-4  # relative change of the answer: rounding is below 1e-6
LARGEST_CHANGE = 0.25
"""Of a fresh block's input, as a share of it. adaLN-Zero makes it 0 (DiT, section 3.2), PixArt's gates, which start near
0, .05; blocks without gates, or whose gates start anywhere, change their input by .4 to all of it."""
LARGEST_ANSWER = 2.0  # of a fresh model, where pictures and noise have size 1
LARGEST_LOGIT = 100.0
"""A softmax of such logits is one-hot, and gives no gradient: Kimi K2 (2025) clips queries and keys there, and ViT-22B
(Dehghani et al. 2023) diverged as they grew beyond."""
NAMING = {"type", "recipe"}  # which config it is, read by pydantic; and where a run comes from, read by people
ROUNDING = 1e-9
"""Of the largest gradient. What is left of sums that should be 0 is below 1e-12 of it, the least of those that learn 1e-4."""
KEY_BIAS = "to_k.bias"
"""Ends the name of what adds the same to all logits of a query, which softmax takes away again. Classes of diffusers have
it, and weights pass both ways by name; it is a thousandth of the parameters at most."""
ALONE = 0.1  # largest share of parameters that may serve prompts of several tokens where there is one


def step_of(subject: Subject) -> Any:
    """A step's sample, in which every part of the model takes part."""
    if isinstance(subject.model, Pipeline):
        return subject.sample(subject.model)
    assert subject.trainee is not None
    return subject.trainee.draw(subject.model, 0, len(subject.batch.captions))


def shown(model: Any, names: list[str]) -> str:
    """How many numbers are in the parameters called `names`, and the first of these."""
    named = dict(model.named_parameters())
    first = f" ({names[0]}{', ...' if len(names) > 1 else ''})" if names else ""
    return f"{sum(named[name].numel() for name in names):,}{first}"


def idle(model: Any) -> list[str]:
    """Names of the parameters whose gradient is none, or rounding."""
    sizes = {name: 0.0 if p.grad is None else float(p.grad.abs().max()) for name, p in model.named_parameters()}
    return [name for name, size in sizes.items() if size <= ROUNDING * max(sizes.values())]


def without_gradient(subject: Subject) -> Finding:
    """Parameters that no gradient reaches, in a step of a model none of whose weights is 0."""
    model = subject.woken
    accumulate_gradients(model, step_of(subject), 1, None)
    dead = idle(model)
    model.zero_grad()
    alone = sorted(of_more_tokens(subject).intersection(dead)) if dead else []
    keys = [name for name in dead if name.endswith(KEY_BIAS)]
    dead = [name for name in dead if name not in (*alone, *keys)]
    named = dict(model.named_parameters())
    count = sum(p.numel() for p in model.parameters())
    spare = sum(named[name].numel() for name in alone) / count
    told = f"{shown(model, dead)} of {count:,} parameters get none"
    if keys:
        told += f"; {sum(named[name].numel() for name in keys):,} are biases of keys, which no softmax sees"
    if alone:
        told += f"; {spare:.1%} choose among the tokens of a prompt, which has one here"
    return judged(
        "gradients",
        not dead and spare < ALONE,
        told,
        "a parameter without gradient keeps its first value: it costs memory and time, or was meant to learn",
        "leave the module out, or connect it; where a prompt has one token, take a backbone that reads its vector (dit)",
    )


def of_more_tokens(subject: Subject) -> set[str]:
    """Names of the parameters that only serve where a prompt has several tokens: those with a gradient then. None where
    prompts have several."""
    model = subject.woken
    if not isinstance(model, Pipeline):
        return set()
    sample = subject.sample(model)
    cond = condition(model, sample.features)
    if int(cond.mask.sum(1).max()) > 1:
        return set()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(len(cond.tokens), 2, cond.tokens.shape[2], generator=generator)  # (B, 2, D)
    several = Cond(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), cond.vector)
    model.backbone(sample.eps, sample.t, several).square().sum().backward()
    found = set(dict(model.named_parameters())).difference(idle(model))
    model.zero_grad()
    return found


@torch.no_grad()
def condition(model: Pipeline, features: dict[str, Tensor]) -> Cond:
    """What the backbone is told, with every other prompt replaced by nothing."""
    cond = model.conditioner(features)
    n = len(cond.tokens)
    return cond.where(torch.arange(n) % 2 == 0, model.conditioner.null(n))


def optimized(subject: Subject) -> Finding:
    """Parameters that have a gradient, and that an optimizer step leaves as they were."""
    assert subject.run is not None
    model = copy.deepcopy(subject.woken)
    accumulate_gradients(model, step_of(subject), 1, None)
    live = set(dict(model.named_parameters())).difference(idle(model))
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(model, subject.run.training.optimizer)
    optimizer.step(1.0)
    stuck = [name for name, p in model.named_parameters() if name in live and torch.equal(p, before[name])]
    moved = live.difference(stuck)
    parts = {name.partition(".")[0] for name in moved}
    wanted = {"backbone", "conditioner"} if isinstance(model, Pipeline) else {"vae"}
    kinds = {p.dtype for p in model.parameters()} | {x.dtype for x in optimizer.tensors().values()}
    assert subject.state is not None
    kinds |= {x.dtype for x in subject.state.ema.average}
    wide = kinds == {torch.float32}
    told = "all float32" if wide else " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    lacking = "".join(f", nothing of the {part}" for part in sorted(wanted - parts))
    return judged(
        "optimizer",
        not stuck and not lacking and wide,
        f"a step leaves {shown(model, stuck)} parameters as they were{lacking}; weights, average and moments {told}",
        "what the optimizer does not hold never learns; a master weight of 16 bits loses updates below 1/256 of it",
        "give the optimizer every parameter of the pipeline, its conditioner's too, and keep them in float32",
    )


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
        f"{len(hooks)} transformer blocks change their input by {max(changes):.0%} at most, the answer has size {size:.2g}",
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


def unread_fields(subject: Subject) -> Finding:
    """Fields of the run that no code reads by name; and those of its model that were set, and that neither building nor
    training nor drawing reads."""
    run = subject.run
    assert run is not None
    unread = [
        f"{type(config).__name__}.{name}"
        for config in within(run)
        for name in type(config).model_fields
        if name not in read_by_name(config) | NAMING
    ]
    idle = [] if isinstance(run, VAERun) else idle_fields(subject, run)
    count = sum(len(type(config).model_fields) for config in within(run))
    faults = [*unread, *(name for name in idle if name not in unread)]
    first = f" ({', '.join(faults[:3])})" if faults else ""
    return judged(
        "config fields",
        not faults,
        f"{len(faults)} of {count} are never read{first}",
        "a setting that nothing reads does nothing, whatever is written there",
        "remove it, or read it where it should act",
    )


def within(config: Config) -> Iterator[Config]:
    """A config and all in it."""
    yield config
    for value in dict(config).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Config):
                yield from within(one)


@cache
def known(place: Path) -> frozenset[str]:
    """Every name that the Python file `place`, or any in the folder `place`, reads as an attribute."""
    files = place.rglob("*.py") if place.is_dir() else [place]
    trees = (ast.parse(one.read_text(encoding="utf-8")) for one in files)
    return frozenset(
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    )


def read_by_name(config: Config) -> frozenset[str]:
    """Every name that the package, and the module that defines the config, read as an attribute."""
    package, file = Path(fromnoise.__file__).parent, sys.modules[type(config).__module__].__file__
    return known(package) | (known(Path(file)) if file and package not in Path(file).parents else frozenset())


def idle_fields(subject: Subject, run: Run) -> list[str]:
    """Fields of the run's model that differ from their default, and that nothing reads as it is built, trained a step
    and drawn from."""
    model = subject.model
    with fields_read() as seen:
        with torch.no_grad():
            model.loss(*draw(model, subject.batch))
        next(model.stream(subject.batch.captions[:1], labels=subject.batch.labels[:1].tolist(), precision="float32"))
    return [
        f"{type(config).__name__}.{name}"
        for config in within(run.model)
        for name, info in type(config).model_fields.items()
        if name not in NAMING
        and dict(config)[name] != info.default
        and (type(config), name) not in seen | subject.fields_read
    ]
