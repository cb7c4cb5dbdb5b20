"""What a network is asked for: y = a x0 + b eps, one row (a, b) per target, and the one conversion there is.

x_t = alpha x0 + sigma eps and y = a x0 + b eps are two linear equations in (x0, eps). Their determinant,
alpha b - sigma a, says where a target breaks: on the linear path it is 1 for flow, -t for x0, 1 - t for eps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fromnoise.diffusion.path import TERMINAL_SIGNAL, Coefs, Path, Prediction, expand

if TYPE_CHECKING:
    from torch import Tensor

Target = Callable[[Coefs], tuple["Tensor", "Tensor"]]

LARGEST_AMPLIFICATION = 200.0
"""Most that an error of the network may grow on its way to x0. DDPM's eps reaches 157 at t = 1."""


def x0(coefs: Coefs) -> tuple[Tensor, Tensor]:
    """The clean picture (JiT: Li and He 2025)."""
    return coefs.alpha.new_ones(coefs.alpha.shape), coefs.alpha.new_zeros(coefs.alpha.shape)


def eps(coefs: Coefs) -> tuple[Tensor, Tensor]:
    """The noise (DDPM: Ho et al. 2020)."""
    return coefs.alpha.new_zeros(coefs.alpha.shape), coefs.alpha.new_ones(coefs.alpha.shape)


def v(coefs: Coefs) -> tuple[Tensor, Tensor]:
    """alpha eps - sigma x0 (Salimans and Ho 2022)."""
    return -coefs.sigma, coefs.alpha


def flow(coefs: Coefs) -> tuple[Tensor, Tensor]:
    """The velocity dx_t / dt at fixed x0 and eps (flow matching: Lipman et al. 2023)."""
    return coefs.d_alpha, coefs.d_sigma


TARGETS: dict[str, Target] = {"x0": x0, "eps": eps, "v": v, "flow": flow}


def det(coefs: Coefs, target: Target) -> Tensor:
    """Determinant of the two equations, (B,). 0 where x_t and y say the same thing."""
    a, b = target(coefs)
    return coefs.alpha * b - coefs.sigma * a


def solve(coefs: Coefs, target: Target, x_t: Tensor, y: Tensor) -> Prediction:
    """x0 and eps from x_t and the network's answer y; all (B, ...). Cramer's rule."""
    a, b = target(coefs)
    alpha, sigma, a, b, d = (expand(c, x_t) for c in (coefs.alpha, coefs.sigma, a, b, det(coefs, target)))
    return Prediction(x0=(b * x_t - sigma * y) / d, eps=(alpha * y - a * x_t) / d)


def amplification(coefs: Coefs, target: Target) -> Tensor:
    """Error of x0 per unit error of y, (B,): sigma / |det|. Not a number where x0 or eps is undefined.

    The error of eps needs no bound of its own: every sampler multiplies it by a sigma no larger than that of x_t.
    """
    return coefs.sigma / det(coefs, target).abs()


def largest_start(path: Path, target: Target) -> float:
    """The latest time at which sampling may start: 1.0, or where errors grow `LARGEST_AMPLIFICATION`-fold.

    eps starts at 0.995 on the linear path and at 0.9968 on the cosine; every other pair at 1. Start there from
    sigma(t) times unit noise, as the samplers do; at most 0.5 % of the signal is missing from it. Where too much would
    be missing it is 1.0 all the same: no start is possible, as `check` then says.
    """
    import torch

    latest = well_posed_until(path, target)
    left = path(torch.tensor([latest], dtype=torch.float64)).alpha
    return latest if float(left) < TERMINAL_SIGNAL else 1.0


def well_posed_until(path: Path, target: Target) -> float:
    """The time before which errors grow at most `LARGEST_AMPLIFICATION`-fold."""
    import torch

    t = torch.arange(1, 10001, dtype=torch.float64) / 10000
    bad = ~(amplification(path(t), target) <= LARGEST_AMPLIFICATION)
    return float(int(bad.int().argmax()) / 10000) if bool(bad.any()) else 1.0


def check(path: Path, target: Target, t_min: float, t_max: float) -> None:
    """ValueError where `target` is singular on `path` in [t_min, t_max], the times at which the network is asked.

    The network is asked at every time of a schedule but the last: `check(path, target, times[-2], times[0])`.
    """
    import torch

    t = torch.linspace(t_min, t_max, 1001, dtype=torch.float64)
    growth = amplification(path(t), target)
    bad = ~(growth <= LARGEST_AMPLIFICATION)
    if not bool(bad.any()):
        return
    worst = int(bad.int().argmax() if bool(growth.isnan().any()) else growth.argmax())
    fold = f"{float(growth[worst]):.3g}-fold" if bool(growth[worst].isfinite()) else "without bound"
    names = {row: name for name, row in TARGETS.items()}
    raise ValueError(
        f"target {names[target]} on path {path.type}: an error of the network grows {fold} "
        f"at t={float(t[worst]):.5g}; "
        f"allowed at most {LARGEST_AMPLIFICATION:g}-fold, which holds for 0 < t <= {well_posed_until(path, target):.4g}"
    )
