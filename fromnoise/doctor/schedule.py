"""What the schedule leaves of the picture, where the prediction is ill-posed, and the curve of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from fromnoise.diffusion.path import TERMINAL_SIGNAL
from fromnoise.diffusion.target import LARGEST_AMPLIFICATION, TARGETS, amplification
from fromnoise.doctor.finding import Finding, judged
from fromnoise.doctor.subject import Subject
from fromnoise.doctor.watch import replaced
from fromnoise.training import loop
from fromnoise.training.log import read_metrics

ENDS = 0.1
"""Largest share of the peak at the last step of a learning rate that is to fall to 0. A cosine planned in steps ends
below 1 % of it; one that is planned in epochs and stepped by batches, or the other way round, ends anywhere."""


class Blank(nn.Module):
    """Answers 0, and keeps the times that it is asked at."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        """As a backbone."""
        self.times.append(t[:1].double().cpu())
        return torch.zeros_like(x)


def asked_times(subject: Subject) -> Tensor:
    """The times (N,) at which the model is asked as it draws a picture by its own sampler."""
    prompts, labels, blank = subject.batch.captions[:1], subject.batch.labels[:1].tolist(), Blank()
    with replaced(subject.model, blank) as model:
        for _ in model.stream(prompts, labels=labels, guidance=1.0, precision="float32"):
            pass
    return torch.cat(blank.times)


def terminal_signal(subject: Subject) -> Finding:
    """Signal left where sampling starts from pure noise: alpha there (Lin et al. 2023)."""
    start = asked_times(subject)[:1]
    left = float(subject.model.config.path(start).alpha)
    return judged(
        "signal left at the end",
        left < TERMINAL_SIGNAL,
        f"{left:.2%} of the picture's amplitude at t = {float(start):.4g}, where drawing starts from noise alone",
        "training never shows pure noise, and drawing starts from it: every picture is biased towards the mean",
        f"rescale the betas (VP.rescaled) until less than {TERMINAL_SIGNAL:.0%} is left, or take the linear path",
    )


def determinants(subject: Subject) -> Finding:
    """Growth of the network's error on its way to x0, sigma / |det|, at every time that is asked."""
    config, times = subject.model.config, asked_times(subject)
    growth = amplification(config.path(times), TARGETS[config.objective.target])
    worst = int(growth.nan_to_num(float("inf")).argmax())
    return judged(
        "path and target",
        bool((growth <= LARGEST_AMPLIFICATION).all()),
        f"errors grow at most {float(growth[worst]):.3g}-fold on the way to x0, at t = {float(times[worst]):.4g} "
        f"(target {config.objective.target}, {len(times)} times)",
        "where the determinant of path and target nears 0, what the network gets wrong is multiplied before it is seen",
        "take model.objective.target v, flow or x0, or start at the t that diffusion.target.largest_start gives",
    )


def learning_rate(subject: Subject) -> Finding:
    """The shares of the peak that the loop's own schedule gives for the steps planned."""
    assert subject.run is not None
    training = subject.run.training
    steps = training.steps
    shares = [loop.schedule(step, steps, training.warmup, training.decay) for step in range(steps)]
    ends = training.decay == 0 or shares[-1] <= ENDS
    rises, peak = restarts(shares), max(shares)
    return judged(
        "learning rate",
        ends and rises == 0 and peak > 1 - ENDS,
        f"rises to {peak:.0%} of its peak over {training.warmup} of {steps:,} steps, restarts {rises} times, "
        f"ends at {shares[-1]:.2%}",
        "a curve counted in epochs where it should be in steps, or the other way round, restarts or never falls",
        "count training.warmup and training.decay in steps planned; warm-up must be over before the fall begins",
    )


def recorded_rate(subject: Subject) -> Finding | None:
    """The learning rates that a run's metrics.jsonl tells of."""
    rates = recorded(subject.directory, "learning_rate")
    if not rates:
        return None
    return judged(
        "learning rate so far",
        restarts(rates) == 0,
        f"restarted {restarts(rates)} times in {len(rates)} lines of metrics.jsonl, now {rates[-1]:.2g}",
        "a learning rate that jumps up again undoes what a low one had settled",
        "train in one go, or go on in the same directory with the same training.steps",
    )


def restarts(rates: Sequence[float]) -> int:
    """How often a curve rises again after it fell, by more than a thousandth of its peak."""
    count, fallen, low, least = 0, False, rates[0], 1e-3 * max(rates)
    for before, now in pairwise(rates):
        fallen, low = fallen or now < before, min(low, now) if fallen else now
        if fallen and now > low + least:
            count, fallen, low = count + 1, False, now
    return count


def recorded(directory: Path | None, key: str) -> list[float]:
    """What the lines of a run's metrics.jsonl say under `key`."""
    lines = read_metrics(directory / "metrics.jsonl") if directory else []
    return [line[key] for line in lines if key in line]
