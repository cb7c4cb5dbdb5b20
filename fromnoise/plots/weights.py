"""How hard a loss presses at each noise level: every target's weight in one common error, against log-SNR.

An error of target m is det_m / det_x0 times that of x0 at the same x_t, and det_x0 = -sigma. So the plain squared error
of m weighs the squared error of x0 by (det_m / sigma)^2: 1 for x0, SNR for eps, 1 / sigma^2 for flow on the linear
path, SNR + 1 for v where alpha^2 + sigma^2 = 1 (Salimans and Ho 2022, section 4). Legend: B times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import Path
from fromnoise.diffusion.target import TARGETS, Target, det
from fromnoise.pipeline.config import ModelConfig
from fromnoise.plots.schedules import curve, log_snr, trained
from fromnoise.plots.style import BLUE, GREEN, GREY, INK, LOG_SNR, ORANGE, PINK, RED, Drawn, sheet, styled
from fromnoise.plots.subject import Subject, Wish

PUBLISHED: dict[str, Callable[[Tensor], Tensor]] = {
    "min-SNR-5 (Hang et al. 2023)": lambda snr: snr.clamp(max=5),
    "EDM (Karras et al. 2022)": lambda snr: snr + 4,  # (s^2 + d^2) / (s d)^2 at s^2 = 1 / SNR, data's std d = 1/2
    "sigmoid, bias 2 (Kingma and Gao 2023)": lambda snr: snr * (2 - snr.log()).sigmoid(),  # of the error of eps
}
"""Published weights of the squared error of x0, as functions of SNR."""
COLOURS = (BLUE, RED, GREEN, ORANGE, PINK)  # of targets, in turn
DASHES = ((0, (1, 1.2)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)))
SPAN = 10.0  # of log-SNR, to either side of 0


def in_x0(path: Path, target: Target, t: Tensor) -> Tensor:
    """Weight on the squared error of x0 that is the plain squared error of `target`, (B,)."""
    coefs = path(t)
    return (det(coefs, target) / coefs.sigma).square()


def of_objective(objective: Objective, path: Path, t: Tensor) -> Tensor:
    """The weight that `objective` puts on the squared error of x0, its largest weight minded, (B,)."""
    return objective.weight(path, t) * in_x0(path, TARGETS[objective.target], t)


def pressed(weight: Callable[[Tensor], Tensor], path: Path, t: Tensor, bins: int = 80) -> tuple[Tensor, Tensor]:
    """Where the loss is, by log-SNR: edges (K + 1,) and heights (K,) of area 1.

    weight: of the squared error of x0 at times (B,). t: the times trained on. The weighting that counts is weight
    times density (Kingma and Gao 2023, section 3). It is told of the error of v, which is about as large at one noise
    level as at another: it is the error of x0 times sqrt(SNR + 1).
    """
    noise_level = log_snr(path, t)  # (B,)
    in_v = weight(t) / (1 + noise_level.exp())  # (B,)
    heights, edges = torch.histogram(noise_level, bins, range=(-SPAN, SPAN), weight=in_v)
    return edges, heights / (heights * edges.diff()).sum()


@styled
def figure(config: ModelConfig, name: str = "this run") -> Figure:
    """All targets' weights on the path of `config`, published ones, and its own."""
    path, objective = config.path, config.objective
    drawn = sheet(
        13,
        4.8,
        f"{name}: how hard each loss presses, by noise level, on the {path.type} path",
        "Left: what the plain squared error of each target weighs an error of x0. Right: times how often each noise "
        "level is trained on, and as an error of v, which is about equally large everywhere: where the loss is.",
    )
    left, right = drawn.subplots(1, 2)
    line, t = curve(path), trained(objective.times)
    most = "" if objective.measure == objective.target else f", weight ≤ {objective.max_weight:g}"
    own = f"this run: {objective.target} measured in {objective.measure}{most}"
    rows: list[tuple[str, Callable[[Tensor], Tensor], dict[str, object]]] = [
        (f"{label} error", lambda t, target=target: in_x0(path, target, t), {"color": colour, "lw": 1.8})
        for (label, target), colour in zip(TARGETS.items(), cycle(COLOURS), strict=False)
    ]
    for dashes, (label, of_snr) in zip(DASHES, PUBLISHED.items(), strict=True):
        rows.append((label, lambda t, f=of_snr: f(log_snr(path, t).exp()), {"color": GREY, "ls": dashes, "lw": 1.4}))
    mine = {"color": INK, "lw": 5, "alpha": 0.3, "zorder": 1}
    rows.append((own, lambda t: of_objective(objective, path, t), mine))
    for label, weight, look in rows:
        left.plot(line.log_snr, weight(line.t), label=label, **look)
        edges, heights = pressed(weight, path, t)
        right.plot((edges[1:] + edges[:-1]) / 2, heights, **look)
    left.set(title="weight of the squared error of x0", ylabel="weight", yscale="log", ylim=(2e-4, 2e5))
    right.set(
        title="share of the loss, with this run's times", ylabel="share per unit of log-SNR (area 1)", ylim=(0, None)
    )
    for axes in (left, right):
        axes.set(xlabel=f"{LOG_SNR}   noise ← → data", xlim=(-SPAN, SPAN))
    drawn.legend(*left.get_legend_handles_labels(), loc="outside right upper")
    return drawn


def refusal(subject: Subject, wish: Wish) -> str:
    return ""


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    drawn = figure(subject.config, subject.name)
    yield Drawn(f"{subject.name}_weights", drawn, subject.about(wish, "weights"))
