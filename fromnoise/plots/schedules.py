"""How a path goes from data to noise: alpha, sigma, log-SNR, the times trained on and those of the sampler.

Legend: P points, K bins, N steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fromnoise.diffusion.path import VP, Cosine, Linear, Path
from fromnoise.diffusion.times import Times
from fromnoise.pipeline.config import ModelConfig
from fromnoise.plots.style import BLUE, GREEN, GREY, LOG_SNR, ORANGE, PINK, RED, TIME, Drawn, sheet, styled
from fromnoise.plots.subject import Subject, Wish
from fromnoise.plots.trace import times_of

PATHS: dict[str, Path] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "VP, DDPM's betas": VP(),
    "VP, Stable Diffusion's betas": VP(beta_start=0.00085, beta_end=0.012, power=2),
}
"""What a path is compared with."""
COLOURS = (BLUE, ORANGE, GREEN, PINK)
DRAWS = 1_000_000  # of the times trained on; they are stratified, so that a bin's share is right within 1 / DRAWS


class Curve(NamedTuple):
    """A path from data to noise; all (P,) float64."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor


def curve(path: Path, points: int = 1001) -> Curve:
    """The path at `points` times, the ends but just within."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    t[0], t[-1] = 1e-6, 1 - 1e-6
    alpha, sigma, _, _ = path(t)
    return Curve(t, alpha, sigma, log_snr(path, t))


def log_snr(path: Path, t: Tensor) -> Tensor:
    """ln(alpha^2 / sigma^2), which falls from data to noise (VDM: Kingma et al. 2021, Eq. 2)."""
    alpha, sigma, _, _ = path(t)
    return 2 * (alpha.log() - sigma.log())


def trained(times: Times) -> Tensor:
    """Very many of the times trained on, in float64."""
    return times.sample(DRAWS, torch.Generator().manual_seed(0)).double()


def density(values: Tensor, low: float, high: float, bins: int) -> tuple[Tensor, Tensor]:
    """Share of `values` per unit, between `low` and `high`: edges (K + 1,) and heights (K,)."""
    counts, edges = torch.histogram(values, bins, range=(low, high))
    return edges, counts / len(values) / edges.diff()


def compared(path: Path) -> dict[str, Path]:
    """`PATHS`, and the run's own first where it is none of them."""
    return PATHS if path in PATHS.values() else {f"{path.type} of this run": path, **PATHS}


@styled
def figure(config: ModelConfig, name: str = "this run") -> Figure:
    """The path of `config` beside others; the times it trains on as densities, its sampler's as ticks."""
    sampling, times = config.sampling, times_of(config, config.sampling.steps)
    drawn = sheet(
        10,
        6.8,
        f"{name}: from data to noise on the {config.path.type} path",
        "Above: paths; the run's is thick. Below: how often each time is trained on (area 1); "
        f"ticks: where its sampler asks ({sampling.sampler}, {sampling.steps} steps, shift {sampling.shift:g}).",
    )
    (mixing, ratio), (by_time, by_snr) = drawn.subplots(2, 2)
    for colour, (label, path) in zip((*COLOURS, RED), compared(config.path).items(), strict=False):
        line, own = curve(path), path == config.path
        look = {"color": colour, "lw": 3 if own else 1.2, "alpha": 1 if own else 0.8, "zorder": 3 if own else 2}
        mixing.plot(line.t, line.alpha, **look)
        mixing.plot(line.t, line.sigma, ls=(0, (3, 1.5)), **look)
        ratio.plot(line.t, line.log_snr, label=f"{label} (this run)" if own else label, **look)
    mixing.set(
        title="x_t = α x0 + σ ε:  α solid, σ dashed", xlabel=TIME, ylabel="amplitude", xlim=(0, 1), ylim=(0, 1.03)
    )
    ratio.set(title="signal against noise", xlabel=TIME, ylabel=LOG_SNR, xlim=(0, 1), ylim=(-15, 15))
    ratio.legend(loc="upper right")
    t, asked = trained(config.objective.times), times[:-1].double().clamp(1e-6, 1 - 1e-6)
    _density(by_time, t, asked, (0, 1))
    by_time.set(title="times trained on, and asked by the sampler", xlabel=TIME, ylabel="density in t", xlim=(0, 1))
    _density(by_snr, log_snr(config.path, t), log_snr(config.path, asked), (-15, 15))
    by_snr.set(title="the same in log-SNR (noise is left)", xlabel=LOG_SNR, ylabel="density in log-SNR", xlim=(-15, 15))
    return drawn


def _density(axes: Axes, values: Tensor, ticks: Tensor, span: tuple[float, float]) -> None:
    edges, heights = density(values, *span, bins=100)
    axes.stairs(heights.numpy(), edges.numpy(), fill=True, color=BLUE, alpha=0.25)
    axes.stairs(heights.numpy(), edges.numpy(), color=BLUE, lw=1.4)
    top = float(heights.max())
    shown = ticks.numpy()[np.abs(ticks.numpy()) <= max(map(abs, span))]
    axes.vlines(shown, -0.12 * top, -0.03 * top, color=RED, lw=1)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_ylim(-0.15 * top, 1.08 * top)


def refusal(subject: Subject, wish: Wish) -> str:
    return ""


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    drawn = figure(subject.config, subject.name)
    yield Drawn(f"{subject.name}_schedules", drawn, subject.about(wish, "schedules"))
