"""How straight the way from noise to picture is: chord over arc, and how far the velocity strays from the chord.

A straight way needs one Euler step, a bent one many (rectified flow: Liu et al. 2022, section 2.2).
Legend: B batch, N steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from fromnoise.diffusion.path import Path, expand
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.style import BLUE, RED, TIME, Drawn, sheet, styled
from fromnoise.plots.subject import Ask, Subject, Wish, no_model
from fromnoise.plots.trace import trace

PICTURES = 16
BOTTOM = 1e-4  # of the picture of deviations: a hundredth of the length
STEPS = 50
"""Of Euler's method on the flow, equal in t, so that runs can be compared whatever their sampler is."""


class Straightness(NamedTuple):
    """Of each of B ways; all numbers are relative to the length of the chord, from first to last."""

    ratio: Tensor  # (B,) chord over arc: 1 is straight
    deviation: Tensor  # (N, B) squared distance of a step's velocity from the chord's: 0 is straight
    score: Tensor  # (B,) its mean over t: S of Liu et al. 2022, section 2.2, less the chord's squared length
    along: Tensor  # (N + 1, B) share of the chord that is done
    aside: Tensor  # (N + 1, B) distance from the chord


def straightness(times: Tensor, x: Tensor) -> Straightness:
    """Of ways x (N + 1, B, ...) that stand there at `times` (N + 1,)."""
    x = x.flatten(2).double()  # (N + 1, B, n)
    chord, moves = x[-1] - x[0], x.diff(dim=0)  # (B, n), (N, B, n)
    length, share = chord.norm(dim=-1), times.double().diff() / (times[-1] - times[0])  # (B,), (N,)
    velocity = moves / share[:, None, None]  # (N, B, n): as if all took one unit of time
    deviation = ((velocity - chord).norm(dim=-1) / length).square()  # (N, B)
    from_start = x - x[0]  # (N + 1, B, n)
    along = (from_start * chord).sum(-1) / length**2  # (N + 1, B)
    aside = (from_start - along[..., None] * chord).norm(dim=-1) / length  # (N + 1, B)
    ratio = length / moves.norm(dim=-1).sum(0)  # (B,)
    return Straightness(ratio, deviation, (share[:, None] * deviation).sum(0), along, aside)


def own_way(path: Path, times: Tensor, x: Tensor) -> Tensor:
    """alpha x0 + sigma eps between the same ends: the ways x (N + 1, B, ...) if all were known from the start."""
    coefs = path(times)  # (N + 1,) each
    eps, x0 = x[:1] / coefs.sigma[0], x[-1:]  # (1, B, ...) each
    return expand(coefs.alpha, x) * x0 + expand(coefs.sigma, x) * eps  # (N + 1, B, ...)


@styled
def figure(pipeline: Pipeline, asks: Sequence[Ask], seed: int = 0, name: str = "this run") -> Figure:
    """Ways of `PICTURES` pictures of `asks` by Euler's method, without guidance and with the model's own."""
    asks = [asks[i % len(asks)] for i in range(PICTURES)]
    config = pipeline.config
    scales = dict.fromkeys((1.0, config.sampling.guidance))
    drawn = sheet(
        10,
        4.9,
        f"{name}: how straight the way from noise to picture is ({config.path.type} path)",
        f"{PICTURES} pictures, {STEPS} Euler steps, equal in t. A straight way has no height on the left, is at the "
        "bottom on the right, and chord / arc = 1. "
        "Dashed: the path alone, α x0 + σ ε between the same ends.",
    )
    aside, bend = drawn.subplots(1, 2)
    for colour, guidance in zip((BLUE, RED), scales, strict=False):
        way = trace(pipeline, asks, seed, STEPS, guidance=guidance, sampler="euler", shift=1.0, eta=0.0)
        s = straightness(way.times, way.x)
        aside.plot(s.along, s.aside, color=colour, lw=0.8, alpha=0.35)
        middles = (way.times[1:] + way.times[:-1]) / 2
        low, high = s.deviation.min(1).values, s.deviation.max(1).values
        bend.fill_between(middles, low, high, color=colour, alpha=0.15, lw=0)
        bend.plot(middles, s.deviation.mean(1), color=colour, label=_told(f"guidance {guidance:g}", s))
        known = straightness(way.times, own_way(config.path, way.times, way.x))
        aside.plot(known.along.mean(1), known.aside.mean(1), color=colour, ls="--", zorder=3)
        bend.plot(middles, known.deviation.mean(1), color=colour, ls="--", lw=1.1, label=_told("path alone", known))
    aside.set(
        title="how far off the straight line each picture goes",
        xlabel="share of the line from noise (0) to picture (1) that is done",
        ylabel="distance from the line / its length",
    )
    bend.set(title="where it bends", xlabel=TIME, ylabel="|velocity − chord|² / |chord|²", yscale="log")
    bend.invert_xaxis()
    aside.set_ylim(bottom=0)
    bend.set_ylim(BOTTOM, 30 * bend.get_ylim()[1])  # room for the legend
    bend.legend(loc="upper left")
    return drawn


def _told(name: str, s: Straightness) -> str:
    return f"{name}: chord / arc {float(s.ratio.mean()):.3f}, S {float(s.score.mean()):.2f}"


def refusal(subject: Subject, wish: Wish) -> str:
    return no_model(subject, wish)


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    asks = subject.asks(wish, PICTURES)
    drawn = figure(subject.pipeline, asks, wish.seed, subject.name)
    yield Drawn(f"{subject.name}_straightness", drawn, subject.about(wish, "straightness", steps=STEPS))
