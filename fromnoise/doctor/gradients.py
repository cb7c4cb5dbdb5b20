"""What in a model learns. Legend: B batch, L tokens, D width."""

from __future__ import annotations

import copy
from typing import Any

import torch

from fromnoise.core.types import Cond
from fromnoise.doctor.blocks import condition
from fromnoise.doctor.finding import Finding, judged
from fromnoise.doctor.subject import Subject
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.optim import Optimizer
from fromnoise.training.step import accumulate_gradients

ROUNDING = 1e-9
"""Of the largest gradient. What is left of sums that should be 0 is below 1e-12 of it, the least of those that learn
1e-4."""
KEY_BIAS = "to_k.bias"
"""Ends the name of what adds the same to all logits of a query, which softmax takes away again. Classes of diffusers
have it, and weights pass both ways by name; it is a thousandth of the parameters at most."""
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
        "leave the module out, or connect it; where a prompt has one token, take a backbone that reads its vector",
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
