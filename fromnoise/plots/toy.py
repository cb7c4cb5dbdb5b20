"""Data in the plane whose best denoiser is known: the field that a network would learn, and what samplers make of it.

Data is a mixture of K round Gaussians N(mu_k, s^2). Then x_t is a mixture of N(alpha mu_k, r^2) with
r^2 = alpha^2 s^2 + sigma^2, and by Bayes' rule
E[x0 | x_t] = sum_k p(k | x_t) (mu_k + alpha s^2 / r^2 (x_t - alpha mu_k)).

Legend: B batch, K Gaussians, G points along a side of the field, N steps. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fromnoise.core.types import Cond
from fromnoise.diffusion.path import VP, Coefs, Cosine, Linear, Path, expand
from fromnoise.diffusion.predict import Predict, predictor
from fromnoise.diffusion.sample import choose
from fromnoise.diffusion.target import TARGETS, Target, largest_start
from fromnoise.diffusion.times import schedule
from fromnoise.pipeline.config import ModelConfig
from fromnoise.plots.style import BLUE, INK, RED, Drawn, sheet, styled
from fromnoise.plots.subject import Subject, Wish

TIMES = (0.9, 0.6, 0.3, 0.1)
REACH = 2.6  # the plane is shown from -REACH to REACH
PARTICLES = 400
TRACED = 70  # particles whose way is drawn
FAST = 2.0  # a speed whose lines are thickest
STEPS = 60


@dataclass(frozen=True)
class Mixture:
    """K equally likely round Gaussians in the plane."""

    means: Tensor  # (K, 2)
    std: float

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (2,) and covariance (2, 2)."""
        return self.means.mean(0), self.means.T.cov(correction=0) + self.std**2 * torch.eye(2, dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points, (n, 2)."""
        which = torch.randint(len(self.means), (n,), generator=generator)
        return self.means[which] + self.std * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def log_likelihoods(self, coefs: Coefs, x: Tensor) -> Tensor:
        """log p(x_t, k) of points x (B, 2) at times (B,), (B, K)."""
        variance = coefs.alpha**2 * self.std**2 + coefs.sigma**2  # (B,)
        away = (x[:, None] - coefs.alpha[:, None, None] * self.means).square().sum(-1)  # (B, K)
        return -away / (2 * variance[:, None]) - (2 * math.pi * variance * len(self.means)).log()[:, None]

    def denoised(self, coefs: Coefs, x: Tensor) -> Tensor:
        """E[x0 | x_t] of points x (B, 2) at times (B,), (B, 2)."""
        alpha = coefs.alpha[:, None]  # (B, 1)
        near = self.log_likelihoods(coefs, x).softmax(1)  # (B, K)
        mean = near @ self.means  # (B, 2)
        shrink = alpha * self.std**2 / (alpha**2 * self.std**2 + coefs.sigma[:, None] ** 2)  # (B, 1)
        return mean + shrink * (x - alpha * mean)


def moons() -> Mixture:
    """Two half circles, one into the other."""
    angles = torch.linspace(0, math.pi, 24, dtype=torch.float64)
    upper = torch.stack((angles.cos() - 0.5, angles.sin() - 0.25), 1)
    return Mixture(1.2 * torch.cat((upper, -upper)), 0.1)


def checkerboard() -> Mixture:
    """Eight squares of a board of four by four."""
    cells = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    inner = [(a + 0.5) / 4 for a in range(4)]
    means = [(i + a - 2, j + b - 2) for i, j in cells for a in inner for b in inner]
    return Mixture(torch.tensor(means, dtype=torch.float64), 0.12)


def gaussians() -> Mixture:
    """Eight Gaussians on a circle."""
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return Mixture(1.6 * torch.stack((angles.cos(), angles.sin()), 1), 0.15)


TOYS = {"moons": moons, "checkerboard": checkerboard, "gaussians": gaussians}


def best(mixture: Mixture, path: Path, target: Target) -> Predict:
    """What samplers ask, answered by the best network there can be for `target` on this data."""

    def network(x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        coefs = path(t)
        x0 = mixture.denoised(coefs, x)  # (B, 2)
        eps = (x - expand(coefs.alpha, x) * x0) / expand(coefs.sigma, x)  # (B, 2)
        a, b = target(coefs)  # (B,) each
        return expand(a, x) * x0 + expand(b, x) * eps

    nothing = Cond(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1))
    return predictor(network, nothing, path=path, target=target)


def velocity(predict: Predict, path: Path, x: Tensor, t: float) -> Tensor:
    """dx / dt of the probability-flow ODE at points x (B, 2), (B, 2); towards noise."""
    times = torch.full((len(x),), t, dtype=x.dtype)
    p, coefs = predict(x, times), path(times)
    return expand(coefs.d_alpha, x) * p.x0 + expand(coefs.d_sigma, x) * p.eps


def ways(mixture: Mixture, path: Path, target: Target, n: int, seed: int, sampler: str = "heun") -> Tensor:
    """The ways of n particles from noise to data, (N + 1, n, 2)."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    times = schedule(STEPS, t_max=largest_start(path, target)).double()
    first = noise()
    steps = choose(sampler)(best(mixture, path, target), first, times, path, noise)
    return torch.stack([path(times[:1]).sigma * first, *(step.x for step in steps)])


def paths_of(path: Path) -> dict[str, Path]:
    """The run's own path first, then the others."""
    others = [other for other in (Linear(), Cosine(), VP()) if other.type != path.type]
    return {f"{path.type} (this run)": path} | {other.type: other for other in others}


@styled
def figure(config: ModelConfig, toy: str = "moons", seed: int = 0) -> Figure:
    """The exact field of the toy on three paths at four times, and particles' ways from noise to data."""
    mixture, target = TOYS[toy](), TARGETS[config.objective.target]
    drawn = sheet(
        12,
        7.9,
        f"What a network would learn of the toy {toy!r}: the velocity from noise to data, exact",
        "Shade: density of x_t. Lines: where the ODE takes a sample, towards data; thick where it moves fast. "
        f"Right: ends of {PARTICLES} particles (blue) after {STEPS} steps of heun, and {TRACED} of their ways from "
        "noise (red dots).",
    )
    rows = paths_of(config.path)
    axes = drawn.subplots(len(rows), len(TIMES) + 1, sharex=True, sharey=True)
    for row, (label, path) in enumerate(rows.items()):
        row_target = target if largest_start(path, target) == 1 else TARGETS["v"]
        predict = best(mixture, path, row_target)
        for column, t in enumerate(TIMES):
            _field(axes[row, column], mixture, predict, path, t)
        _ways(axes[row, -1], ways(mixture, path, row_target, PARTICLES, seed))
        axes[row, 0].set_ylabel(label, size=10.5)
    for column, t in enumerate(TIMES):
        axes[0, column].set_title(f"t = {t:g}")
    axes[0, -1].set_title("from noise to data")
    return drawn


def _field(axes: Axes, mixture: Mixture, predict: Predict, path: Path, t: float) -> None:
    side = torch.linspace(-REACH, REACH, 61, dtype=torch.float64)  # (G,)
    points = torch.cartesian_prod(side, side)  # (G G, 2), x outer
    coefs = path(torch.full((len(points),), t, dtype=torch.float64))
    density = mixture.log_likelihoods(coefs, points).logsumexp(1).exp()  # (G G,)
    u, v = -velocity(predict, path, points, t).T.reshape(2, len(side), len(side)).transpose(1, 2).numpy()  # (G, G) each
    shade = density.reshape(len(side), len(side)).T.sqrt().numpy()  # the root, so that thin places show
    axes.imshow(shade, origin="lower", extent=(-REACH, REACH, -REACH, REACH), cmap="Blues", alpha=0.8, vmin=0)
    grid = side.numpy()
    axes.streamplot(
        grid,
        grid,
        u,
        v,
        density=0.75,
        color=INK,
        linewidth=0.2 + 0.8 * np.clip(np.hypot(u, v) / FAST, 0, 1),
        arrowsize=0.7,
    )
    _plane(axes)


def _ways(axes: Axes, x: Tensor) -> None:
    lines = x[:, :TRACED].numpy()
    axes.plot(lines[..., 0], lines[..., 1], color=INK, lw=0.5, alpha=0.5)
    axes.scatter(*lines[0].T, s=5, color=RED, zorder=3)
    axes.scatter(*x[-1].T.numpy(), s=5, color=BLUE, zorder=4)
    _plane(axes)


def _plane(axes: Axes) -> None:
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[-2, 0, 2], yticks=[-2, 0, 2], aspect="equal")
    axes.grid(False)


def refusal(subject: Subject, wish: Wish) -> str:
    return ""


def draw(subject: Subject, wish: Wish) -> Iterator[Drawn]:
    drawn = figure(subject.config, wish.toy, wish.seed)
    yield Drawn(f"{subject.name}_toy_{wish.toy}", drawn, subject.about(wish, "toy", toy=wish.toy))
