"""What a training makes of its steps: the average of the weights, and whether they learn at all.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.diffusion.path import expand
from fromnoise.diffusion.target import TARGETS
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.subject import Subject, draw
from fromnoise.evaluation.denoising import times_of
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import loop
from fromnoise.training.ema import Ema
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import AdamW
from fromnoise.training.step import Sample

LARGEST_SHARE = 0.01
"""Of the first weights in the average at the end. They are noise, and 1 % of it is below what a picture shows; the
recipes keep less than a millionth, a decay of .9999 over 18,750 steps keeps 15 %."""
MOST_STEPS = 100_000  # of the average that are done: after more of them still less is left
FIT = 0.75
"""Largest share of one batch that is not learned after `STEPS`. A model that is deaf, or whose gradients are cut off,
stays at 1; the recipes get below this in 5 to 50 steps."""
RATE = 1e-3
"""Of AdamW, whatever the run's optimizer: on four pictures no backbone here needs a warm-up at it, and Muon's steps
would take most of a minute for 25M parameters."""
STEPS = 150
SECONDS = 30.0  # of processor time, for these steps
ROWS = 4  # different prompts, the last of them dropped
LARGEST_RATIO = 1.02  # between the largest and the smallest of models that are said to have as many parameters


def average(subject: Subject) -> Finding:
    """Share of the first weights in the average at the planned end; and what parameters it leaves out."""
    assert subject.state is not None and subject.run is not None
    steps = min(subject.run.training.steps, MOST_STEPS)
    one = nn.Linear(1, 1, bias=False)
    nn.init.ones_(one.weight)
    ema = Ema(one, subject.state.ema.length)
    nn.init.zeros_(one.weight)
    for step in range(steps):
        ema.update(step)
    share = float(ema.average[0])

    model = subject.state.model
    averaged = {id(weight) for weight in subject.state.ema.weights}
    left = [name for name, p in model.named_parameters() if id(p) not in averaged]
    first = f" ({left[0]}{', ...' if len(left) > 1 else ''})" if left else ""
    return judged(
        "weight average",
        share < LARGEST_SHARE and not left,
        f"{share:.2%} of the first weights is left after {steps:,} steps, {len(left)} parameters are not averaged"
        f"{first}",
        "pictures are drawn by the average: what is left of the first weights in it is noise",
        "set training.ema to a share of the steps planned, .05 or less, with a warm-up; average every parameter",
    )


class Riddle(NamedTuple):
    """A batch in which the same noisy picture is asked for another clean one by each prompt, the last of them dropped,
    at as much noise as signal: what answers differ by can be told from the prompt alone."""

    sample: Sample
    wanted: Tensor  # (B, C, H, W)

    def left(self, answers: Tensor) -> float:
        """Share of what answers should differ by that `answers` (B, C, H, W) do not: 1 where they are all the same."""
        wanted, found = (y - y.mean(0) for y in (self.wanted, answers.detach().float()))
        return float((found - wanted).square().sum() / wanted.square().sum())


def riddle(subject: Subject, model: Pipeline) -> Riddle | None:
    """The riddle of the first prompts that differ; None where all are the same to the model."""
    batch = subject.served.train(0, 64)
    said = list(zip(batch.captions, batch.labels.tolist(), strict=True))
    labels = len(set(batch.labels.tolist())) >= ROWS  # captions of different labels are different, too
    first = {(label if labels else caption): i for i, (caption, label) in reversed(list(enumerate(said)))}
    index = torch.tensor(sorted(first.values())[:ROWS])
    sample = draw(model, batch)
    features = {key: value[index] for key, value in sample.features.items()}
    with torch.no_grad():
        vectors = model.conditioner(features).vector
    if not bool((vectors != vectors[:1]).any()):
        return None
    z = sample.z[index]  # (B, C, H, W)
    t = times_of(model.config.path, (0.5,)).float().expand(len(index))  # (B,)
    coefs = model.config.path(t)
    eps = (sample.eps[:1] - expand(coefs.alpha, z) * z) / expand(coefs.sigma, z)  # (B, C, H, W): x_t is the same in all
    a, b = TARGETS[model.config.objective.target](coefs)
    wanted = expand(a, z) * z + expand(b, z) * eps  # (B, C, H, W)
    keep = torch.arange(len(index)) < len(index) - 1
    return Riddle(Sample(z, features, t, eps, keep), wanted)


def one_batch(subject: Subject) -> Finding:
    """Real steps on one batch that never changes, until a quarter of what there is to learn is learned."""
    assert subject.run is not None and subject.trainee is not None
    name, model = "one batch", copy.deepcopy(subject.model)
    optimizer = Optimizer(model, AdamW(lr=RATE))
    asked = riddle(subject, model) if isinstance(model, Pipeline) else None
    sample = asked.sample if asked else subject.trainee.draw(model, 0, ROWS)
    answers: list[Tensor] = []
    if asked:
        model.backbone.register_forward_hook(lambda _, args, y: answers.append(y))
    start, first, left, step = time.process_time(), 0.0, float("inf"), 0
    while step < STEPS and left > FIT and time.process_time() - start < SECONDS:
        loss = float(loop.accumulate_gradients(model, sample, 1, None).mean())
        first = first or loss
        left = asked.left(answers.pop()) if asked else loss / first
        loop.clip_gradients(model, subject.run.training.clip)
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # another check tells of it
        optimizer.step(1.0)
        model.zero_grad()
        step += 1
    if step < STEPS and left > FIT:
        return left_out(name, f"{step} steps took {SECONDS:.0f} s, and left {left:.0%}: too slow here to tell")
    what = f"what {len(asked.wanted)} prompts make of the same noise" if asked else "the loss of a fixed batch"
    return judged(
        name,
        left <= FIT,
        f"{left:.0%} of {what} is not learned after {step} steps",
        "a model that cannot learn one batch by heart, prompts and all, learns nothing from many",
        "look for a detached gradient, a condition that is never read, or a target that no input tells of",
    )


def parameters(subject: Subject) -> Finding | None:
    """Numbers of parameters side by side, where several runs are said to have the same."""
    if not subject.family:
        return None
    counts = {name: counted(run, subject) for name, run in subject.family.items()}
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return judged(
        "same size",
        counts[most] < LARGEST_RATIO * counts[least],
        f"{least} has {counts[least]:,} parameters, {most} {counts[most]:,} of {len(counts)} that are said to be alike",
        "what is compared at another size shows what size does, not what the method does",
        "change model.backbone.width or depth until they agree (fromnoise compare --match parameters)",
    )


def counted(run: Any, subject: Subject) -> int:
    """Parameters of a run on the subject's data."""
    channels, size, _ = subject.served.image_shape
    model = run.model.model_copy(update={"channels": channels, "size": size})
    return sum(p.numel() for p in Pipeline.build(model, subject.served.captions(200), 0).parameters())
