"""How well the model is told the time. Legend: B batch, F features."""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.core.device import autocast
from fromnoise.diffusion.times import schedule
from fromnoise.doctor.finding import Finding, judged
from fromnoise.doctor.schedule import asked_times
from fromnoise.doctor.subject import Subject, draw
from fromnoise.doctor.watch import time_features

TIMES = 1000
TOGETHER = 100  # times of one forward
LEAST_RANK = 4.0
"""Of t in [0, 1] in place of [0, 1000], the effective rank is 1.05 to 1.08 for 16 to 256 features; of 1000 t it is 11
to 59."""
STEPS = 7  # of a drawing whose features are compared; no seventh is exact in bfloat16
LARGEST_ERROR = 1e-2
"""Relative difference of the features in training and in drawing: .24 for a time cast to bfloat16, below 1e-4 in
float32."""


def trained_features(subject: Subject, t: Tensor, dtype: torch.dtype | None = None) -> Tensor | None:
    """What the time embedding is given in a step of training at the times t (B,): (B, F). dtype: of `autocast`."""
    model = subject.model
    sample = draw(model, subject.batch)
    rows = torch.zeros(len(t), dtype=torch.int64)  # one picture, one caption
    features = {key: value[rows] for key, value in sample.features.items()}
    keep = torch.ones(len(t), dtype=torch.bool)

    def step() -> None:
        with torch.no_grad(), autocast(model.device, dtype):
            model.loss(sample.z[rows], features, t, sample.eps[rows], keep)

    return time_features(model, step, stop=True)


def effective_rank(features: Tensor) -> float:
    """How many independent numbers features (B, F) are worth: exp of the entropy of their variances by principal
    component (Roy and Vetterli 2007, of variances)."""
    variances = torch.linalg.svdvals((features - features.mean(0)).double()).square()
    shares = variances[variances > 0] / variances.sum()
    return float((-(shares * shares.log()).sum()).exp())


def rank(subject: Subject) -> Finding:
    """Effective rank of the time embedding's input over the trained times."""
    t = (torch.arange(TIMES) + 0.5) / TIMES
    parts = [trained_features(subject, part) for part in t.split(TOGETHER)]
    name, why = "time embedding", "times that look alike to the model are denoised alike"
    remedy = "feed sinusoids of 1000 t, computed in float32 outside autocast (nn.embed.time_features)"
    known = [part for part in parts if part is not None]
    if not known:
        return judged(name, False, "no time embedding hangs on t", why, remedy)
    features = torch.cat(known)  # (TIMES, F)
    effective = effective_rank(features)
    distinct = len(torch.unique(features, dim=0))
    return judged(
        name,
        effective >= LEAST_RANK and distinct > 0.99 * TIMES,
        f"effective rank {effective:.2f} of {features.shape[1]} features, {distinct} of {TIMES} times distinct",
        why,
        remedy,
    )


def same_time(subject: Subject) -> Finding:
    """The features of equal times, in training under autocast and in drawing."""
    model, times = subject.model, schedule(STEPS)[:-1]  # (STEPS,)
    request = {
        "labels": subject.batch.labels[:1].tolist(),
        "guidance": 1.0,
        "shift": 1.0,
        "eta": 0.0,
        "precision": "bfloat16",
    }

    def drawing() -> None:
        for _ in model.stream(subject.batch.captions[:1], STEPS, sampler="euler", **request):
            pass

    start = asked_times(subject)[0].float()
    trained = trained_features(subject, start * times, torch.bfloat16)
    drawn = time_features(model, drawing, stop=False)
    name = "dtype of t"
    why = "bfloat16 tells 506 of 1000 times apart; trained on one time and drawn with another, every answer is off"
    remedy = "keep t and its sinusoids in float32, outside autocast, in training and in drawing"
    if trained is None or drawn is None:
        return judged(name, False, "no time embedding hangs on t", why, remedy)
    error = float((trained - drawn).norm() / drawn.norm())
    return judged(
        name, error < LARGEST_ERROR, f"features in training and in drawing differ by {error:.2%}", why, remedy
    )
