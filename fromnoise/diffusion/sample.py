"""Samplers: generators from noise to data, one step a yield. Legend: B batch, N steps.

All take `predict`, unit `noise` (B, ...), `times` (N + 1,) falling from at most 1 to 0, the `path`, and `draw`, which
gives fresh unit noise like x and is called by the stochastic ones only. They start from sigma(times[0]) noise, never
ask the network at t = 0, and know neither guidance nor what the network predicts. Run them under
`torch.no_grad()`. Keep `times` on the CPU: a GPU's would be waited for where a step depends on its time, and what is
reckoned of them would be a kernel each. Kept free of torch, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from fromnoise.core.config import hint
from fromnoise.core.transfer import sent
from fromnoise.diffusion.path import Coefs, Path, Prediction, expand

if TYPE_CHECKING:
    from torch import Tensor

    from fromnoise.diffusion.predict import Predict


class Step(NamedTuple):
    """One step of a sampler."""

    x: Tensor
    """The sample after the step, (B, ...)."""
    x0: Tensor
    """The picture the network expected before the step, (B, ...)."""


Draw = Callable[[], "Tensor"]
Sampler = Callable[["Predict", "Tensor", "Tensor", Path, Draw], Iterator[Step]]


def ddpm(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
    """Ancestral sampling, DDPM Algorithm 2 (Ho et al. 2020), with the posterior variance beta-tilde of Eq. 7.

    Written for any pair of times on any path: x_t = r x_s + noise with r = alpha_t / alpha_s.
    """
    alpha, sigma, _, _ = path(times)  # (N + 1,) each
    x = sigma[0] * noise
    for i, t in enumerate(times[:-1]):
        p = predict(x, t.expand(len(x)))
        kept = alpha[i] / alpha[i + 1] * sigma[i + 1] / sigma[i]  # r sigma_s / sigma_t: 0 if all noise is fresh
        x = alpha[i + 1] * p.x0 + kept * sigma[i + 1] * p.eps
        if not _lands(times, i):
            x = x + sigma[i + 1] * (1 - kept**2).sqrt() * draw()
        yield Step(x, p.x0)


def ddim(eta: float) -> Sampler:
    """DDIM (Song et al. 2021, Eq. 12 and 16): eta 0 is deterministic, eta 1 is `ddpm`."""

    def sample(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
        alpha, sigma, _, _ = path(times)  # (N + 1,) each
        x = sigma[0] * noise
        for i, t in enumerate(times[:-1]):
            p = predict(x, t.expand(len(x)))
            kept = alpha[i] / alpha[i + 1] * sigma[i + 1] / sigma[i]
            fresh = eta * (1 - kept**2).sqrt()  # share of the new noise that is drawn
            x = alpha[i + 1] * p.x0 + sigma[i + 1] * (1 - fresh**2).sqrt() * p.eps
            if eta > 0 and not _lands(times, i):
                x = x + sigma[i + 1] * fresh * draw()
            yield Step(x, p.x0)

    return sample


def euler(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
    """Euler's method in t on the probability-flow ODE (Song et al. 2021b, Eq. 13; flow matching, Lipman et al. 2023).

    A step to t = 0 is to x0: on the linear path that is Euler's step; on VP the slope of sigma has a pole there.
    """
    coefs = path(times)  # (N + 1,) each
    x = coefs.sigma[0] * noise
    for i, t in enumerate(times[:-1]):
        p = predict(x, t.expand(len(x)))
        x = p.x0 if _lands(times, i) else x + (times[i + 1] - t) * _slope(coefs, i, p)
        yield Step(x, p.x0)


def heun(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
    """Heun's method on the same ODE, as in Algorithm 1 of Karras et al. 2022; asks twice a step, once in the last."""
    coefs = path(times)  # (N + 1,) each
    x = coefs.sigma[0] * noise
    for i, t in enumerate(times[:-1]):
        p = predict(x, t.expand(len(x)))
        if _lands(times, i):
            x = p.x0
        else:
            dt, d = times[i + 1] - t, _slope(coefs, i, p)
            q = predict(x + dt * d, times[i + 1].expand(len(x)))
            x = x + dt * (d + _slope(coefs, i + 1, q)) / 2
        yield Step(x, p.x0)


def rk4(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
    """Runge and Kutta's method of fourth order on the same ODE (Hairer et al. 1993, Table II.1.2).

    Asks four times a step, once in the last: a step to t = 0 is to x0, as no slope can be had there. That one step is
    of second order, and down to the data so is the whole.
    """
    coefs, middle = path(times), path(times[:-1] + times.diff() / 2)  # (N + 1,) and (N,) each
    x = coefs.sigma[0] * noise
    for i, t in enumerate(times[:-1]):
        p = predict(x, t.expand(len(x)))
        if _lands(times, i):
            x = p.x0
        else:
            dt = times[i + 1] - t
            half = (t + dt / 2).expand(len(x))  # (B,)
            k1 = _slope(coefs, i, p)
            k2 = _slope(middle, i, predict(x + dt / 2 * k1, half))
            k3 = _slope(middle, i, predict(x + dt / 2 * k2, half))
            k4 = _slope(coefs, i + 1, predict(x + dt * k3, times[i + 1].expand(len(x))))
            x = x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6
        yield Step(x, p.x0)


def dpmpp_2m(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
    """DPM-Solver++(2M), Algorithm 2 of Lu et al. 2022b: x0 extrapolated in lambda = log(alpha / sigma).

    Lambda is -inf at pure noise and inf at data; next to either the step is of first order, without a branch.
    """
    import torch

    alpha, sigma, _, _ = path(times)  # (N + 1,) each
    h = (alpha.log() - sigma.log()).diff()  # (N,) steps of lambda
    reach = torch.cat([h.new_zeros(1), h[1:] / (2 * h[:-1])]).nan_to_num(0, posinf=0)  # (N,) the paper's 1 / (2 r)
    x, before = sigma[0] * noise, 0 * noise
    for i, t in enumerate(times[:-1]):
        x0 = predict(x, t.expand(len(x))).x0
        ahead = x0 + reach[i] * (x0 - before)
        shrink = sigma[i + 1] / sigma[i]
        x, before = shrink * x + (alpha[i + 1] - alpha[i] * shrink) * ahead, x0
        yield Step(x, x0)


class Transition(NamedTuple):
    """The Gaussian from which one step of `sde` is drawn."""

    mean: Tensor
    """(B, ...)."""
    std: Tensor
    """(B,)."""


def transition(p: Prediction, t: Tensor, s: Tensor, path: Path, noise_level: float) -> Transition:
    """From x_t to x_s by the flow's SDE, dx = (slope - g^2 score / 2) dt + g dw; t and s (B,), s < t.

    Any g(t) keeps the marginals of the ODE (Song et al. 2021b, Eq. 6; SiT: Ma et al. 2024). Here g^2 = noise_level^2
    sigma d_sigma, which on the linear path at level 1 is SiT's w = sigma. It vanishes at the data and is finite at pure
    noise, where DDPM's g and Flow-GRPO's a sqrt(t / (1 - t)) (Liu et al. 2025) have a pole and throw the first noise
    away; in the middle level 1 is their a = 0.7.

    While x0 holds still, eps = (x - alpha x0) / sigma obeys d eps = eps g^2 / (2 sigma^2) dt + g / sigma dw. Solved
    exactly, eps decays by (sigma_s / sigma_t)^(noise_level^2 / 2), and fresh noise fills it up to unit variance. So x_s
    has sigma_s of noise however long the step; an Euler-Maruyama step leaves more, and it shows (Wang and Yu 2025).
    """
    now, then = path(t), path(s)  # (B,) each
    kept = (then.sigma / now.sigma) ** (noise_level**2 / 2)  # (B,)
    mean = expand(then.alpha, p.x0) * p.x0 + expand(then.sigma * kept, p.x0) * p.eps  # (B, ...)
    fresh = (1 - kept**2).clamp(min=0).sqrt()  # (B,); VP's sigma is flat near 1, and rounding may make it rise
    return Transition(mean, then.sigma * fresh)


def sde(noise_level: float) -> Sampler:
    """The SDE form of the flow, by `transition`: level 0 is `ddim(0)`, infinity draws all noise anew at each step."""

    def sample(predict: Predict, noise: Tensor, times: Tensor, path: Path, draw: Draw) -> Iterator[Step]:
        x = path(times).sigma[0] * noise
        for i, pair in enumerate(pairwise(times)):
            t, s = (sent(time.expand(len(x)), x.device) for time in pair)  # (B,) each
            p = predict(x, pair[0].expand(len(x)))
            x, std = transition(p, t, s, path, noise_level)
            if noise_level > 0 and not _lands(times, i):
                x = x + expand(std, x) * draw()
            yield Step(x, p.x0)

    return sample


def _slope(coefs: Coefs, i: int, p: Prediction) -> Tensor:
    """dx / dt at the i-th time, (B, ...)."""
    return coefs.d_alpha[i] * p.x0 + coefs.d_sigma[i] * p.eps


def _lands(times: Tensor, i: int) -> bool:
    """Whether step i ends at the data."""
    return i + 2 == len(times) and float(times[-1]) == 0


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim(0.0),
    "euler": euler,
    "heun": heun,
    "rk4": rk4,
    "dpmpp_2m": dpmpp_2m,
    "sde": sde(1.0),
}

WITH_ETA: dict[str, Callable[[float], Sampler]] = {"ddim": ddim}


def choose(name: str, eta: float = 0.0) -> Sampler:
    """The sampler called `name`; `eta` is ddim's. ValueError for an unknown name, or an eta that would be ignored."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; {hint(name, SAMPLERS)}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta:g}; allowed 0 <= eta <= 1")
    if eta == 0:
        return SAMPLERS[name]
    if name not in WITH_ETA:
        raise ValueError(f"eta is {eta:g} with sampler {name}; only {', '.join(WITH_ETA)} reads eta, allowed 0")
    return WITH_ETA[name](eta)
