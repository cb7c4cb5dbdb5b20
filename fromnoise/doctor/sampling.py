"""Whether drawing undoes what training does: an oracle answers in the model's place, as the objective itself asks.

Legend: B batch, C channels, H height, W width, D width of the condition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import Path, expand
from fromnoise.diffusion.predict import predictor
from fromnoise.diffusion.target import TARGETS
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.schedule import asked_times
from fromnoise.doctor.subject import Subject, draw
from fromnoise.doctor.watch import conditions, replaced

MEAN, STD = 1.0, 0.5  # of the pictures that the oracle knows
GUIDANCE = 3.0  # at which such pictures have a mean of 3: that of what is said, three times
STEPS_TO_CONVERGE = 200
LARGEST_MISS = 0.1
"""Of the mean drawn, and of the spread, as a share, in so many steps: what is left of a right sampler's error is below
.05. A wrong sign diverges, and guidance that moves one state of two draws a mean of 1.06 where 3 is right."""
LARGEST_RETURN = 1e-2  # of a picture's own scale: float32 errors, grown 200-fold at most, are below 1e-4
PROMPTS = 4
STEPS = 2  # of drawings that are only compared with each other
DRAWS = 20  # batches whose dropped prompts are counted
LARGEST_GAP = 0.08  # between share dropped and asked for: six standard deviations of 20 batches of 64 at a tenth
ROWS = 64


def asked(objective: Objective, path: Path, x0: Tensor, eps: Tensor, t: Tensor, cond: Any) -> Tensor:
    """The answer (B, C, H, W) at which the training's own loss is least, found from its gradients: the loss is a
    parabola in every number of the answer, and two slopes tell where its bottom is."""

    def slope(level: float) -> Tensor:
        y = torch.full_like(x0, level).requires_grad_()
        with torch.enable_grad():
            loss = objective.loss(lambda *_: y, x0, cond, t, eps, path).sum()
        return torch.autograd.grad(loss, y)[0]  # (B, C, H, W)

    at_0 = slope(0.0)
    return -at_0 / (slope(1.0) - at_0)


class Oracle(nn.Module):
    """The best answer where every number of a picture is normal by itself: of mean `MEAN` where something is said, 0
    where nothing is, and standard deviation `STD`.

    What drawing must give is then known: the oracle's own mean and spread, and under guidance g a mean of g `MEAN`.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.objective, self.path = model.config.objective, model.config.path
        with torch.no_grad():
            self.nothing = model.conditioner.null(1).vector  # (1, D)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """As a backbone."""
        coefs = self.path(t)
        mean = MEAN * (cond.vector - self.nothing).abs().gt(1e-6).any(1).float()  # (B,)
        shrink = coefs.alpha * STD**2 / (coefs.alpha**2 * STD**2 + coefs.sigma**2)  # (B,)
        x0 = expand(mean - shrink * coefs.alpha * mean, x) + expand(shrink, x) * x  # (B, C, H, W)
        eps = (x - expand(coefs.alpha, x) * x0) / expand(coefs.sigma, x)  # (B, C, H, W)
        return asked(self.objective, self.path, x0, eps, t, cond)


def drawn(subject: Subject, model: Any, guidance: float, **how: Any) -> Tensor:
    """What `model` draws of the first captions, (B, C, H, W), by its own sampler."""
    prompts, labels = subject.batch.captions[:PROMPTS], subject.batch.labels[:PROMPTS].tolist()
    *_, last = model.stream(prompts, guidance=guidance, labels=labels, interval=(0.0, 1.0), precision="float32", **how)
    return last.x


def reads(subject: Subject) -> bool:
    """Whether the model tells a prompt from nothing."""
    model, batch = subject.model, subject.batch
    with torch.no_grad():
        cond = model.conditioner(model.conditioner.encode(batch.captions, batch.labels))
        return bool((cond.vector - model.conditioner.null(1).vector).abs().max() > 1e-6)


def to_noise_and_back(subject: Subject) -> Finding:
    """Pictures taken to the noise of every time drawn at, and back by what training asks for there; then pictures of a
    known mean and spread, drawn from noise alone."""
    model, times = subject.model, asked_times(subject).float()  # (T,)
    config, z = model.config, draw(model, subject.batch).z[:1]  # (1, C, H, W)
    generator = torch.Generator().manual_seed(0)
    returned = 0.0
    for part in times.split(64):
        x0 = z.expand(len(part), *z.shape[1:])
        eps = torch.randn(x0.shape, generator=generator)
        y = asked(config.objective, config.path, x0, eps, part, None)
        coefs = config.path(part)
        x_t = expand(coefs.alpha, x0) * x0 + expand(coefs.sigma, x0) * eps  # (T, C, H, W)
        predict = predictor(lambda *_, y=y: y, None, path=config.path, target=TARGETS[config.objective.target])  # type: ignore[arg-type]
        returned = max(returned, float((predict(x_t, part).x0 - x0).abs().max() / x0.abs().max().clamp(min=1e-3)))
    with replaced(model, Oracle(model)):
        x = drawn(subject, model, 1.0, steps=STEPS_TO_CONVERGE)
        few = min(config.sampling.steps, STEPS_TO_CONVERGE)
        own = drawn(subject, model, 1.0, steps=few)
    wanted = MEAN if reads(subject) else 0.0
    mean, spread = float(x.mean()), float(x.std())
    sampling = config.sampling
    return judged(
        "noise and back",
        returned < LARGEST_RETURN and abs(mean - wanted) < LARGEST_MISS and abs(spread / STD - 1) < LARGEST_MISS,
        f"x0 comes back to {returned:.1g}; {sampling.sampler} draws mean {mean:.2f}, spread {spread:.2f} in "
        f"{STEPS_TO_CONVERGE} steps where {wanted:.2f}, {STD:.2f} are right; in {few}, {float(own.mean()):.2f}, "
        f"{float(own.std()):.2f}",
        "a sampler that takes the answer for another target, sign or amplitude than it was trained for draws nothing",
        "share one convention: x_t = alpha x0 + sigma eps, and the answer solved by diffusion.target.solve",
    )


def guided_mean(subject: Subject) -> Finding:
    """The mean that guidance 3 draws where it is known; and how much of the prompt is left at guidance 0."""
    name = "guidance"
    if not reads(subject):
        return left_out(name, "the model reads no prompts")
    with replaced(subject.model, Oracle(subject.model)) as model:
        mean = float(drawn(subject, model, GUIDANCE, steps=STEPS_TO_CONVERGE).mean())
    woken, batch = subject.woken, subject.batch
    said = list(zip(batch.captions, batch.labels.tolist(), strict=True))
    two = max(((one, other) for one in said for other in said), key=lambda pair: unlike(*pair))

    def difference(guidance: float) -> float:
        fixed = {"interval": (0.0, 1.0), "precision": "float32"}
        one, other = (
            [*woken.stream(caption, STEPS, guidance, labels=[label], **fixed)][-1].x for caption, label in two
        )
        return float((one - other).abs().mean())

    left = difference(0.0) / max(difference(1.0), 1e-12)
    wanted = GUIDANCE * MEAN
    return judged(
        name,
        abs(mean / wanted - 1) < LARGEST_MISS and left < 1e-3,
        f"guidance {GUIDANCE:g} draws mean {mean:.2f} where {wanted:.2f} is right; at guidance 0 {left:.1%} of the "
        f"prompt's effect is left",
        "guidance that moves one of two states, or a scale 0 that still reads the prompt, draws other than it says",
        "wrap the predictor (diffusion.predict.guided): null + scale (cond - null), 0 unconditional, 1 conditional",
    )


def unlike(one: tuple[str, int], other: tuple[str, int]) -> int:
    """In how many of caption and label the two differ."""
    return (one[0] != other[0]) + (one[1] != other[1])


def null_condition(subject: Subject) -> Finding:
    """How often training drops a prompt, and whether drawing uses what it is replaced by."""
    name, model, batch = "null condition", subject.model, subject.batch
    if not reads(subject):
        return left_out(name, "the model reads no prompts")
    objective, sampling = model.config.objective, model.config.sampling
    batch = subject.served.train(0, ROWS)
    kept = torch.cat([draw(model, batch, step).keep for step in range(DRAWS)])
    dropped = 1 - float(kept.float().mean())
    sample = subject.sample(model)
    sample = sample._replace(keep=torch.zeros_like(sample.keep))

    def train() -> None:
        with torch.no_grad():
            model.loss(*sample)

    def sampled() -> None:
        drawn(subject, model, 0.0, steps=STEPS)

    (trained, *_), (used, *_) = conditions(model, train), conditions(model, sampled)
    gap = float((trained.vector[:1] - used.vector[:1]).detach().abs().max())
    needed = sampling.guidance not in (0.0, 1.0)
    return judged(
        name,
        gap < 1e-5 and abs(dropped - objective.dropout) < LARGEST_GAP and (dropped > 0 or not needed),
        f"{dropped:.1%} of prompts dropped in training where {objective.dropout:.1%} are asked for; the null of "
        f"drawing differs from that by {gap:.1g}",
        f"guidance {sampling.guidance:g} sets what is said against nothing said, which must have been trained",
        "set model.objective.dropout to 0.05 to 0.2, and take the null from the conditioner in both places",
    )
