"""Samplers against closed forms: a Gaussian, whose ODE is solved exactly, and a point mass, on which all land.

For data N(mu, s^2) x_t is N(alpha mu, alpha^2 s^2 + sigma^2), E[x0 | x_t] is linear in x_t, and along the
probability-flow ODE (x_t - alpha mu) / sqrt(alpha^2 s^2 + sigma^2) stays what it was.
"""

from itertools import pairwise

import pytest
import torch

from fromnoise.core.types import Cond
from fromnoise.diffusion.path import VP, Cosine, Linear, Prediction, expand
from fromnoise.diffusion.predict import guided, predictor
from fromnoise.diffusion.sample import SAMPLERS, choose, ddim, ddpm, dpmpp_2m, euler, heun, rk4, sde, transition
from fromnoise.diffusion.target import TARGETS, largest_start
from fromnoise.diffusion.times import schedule

PATHS = [Linear(), Cosine(), VP()]
paths = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.type)
samplers = pytest.mark.parametrize("name", SAMPLERS)
DETERMINISTIC = ["ddim", "euler", "heun", "rk4", "dpmpp_2m"]
STOCHASTIC = ["ddpm", "sde"]
CALLS = dict.fromkeys(SAMPLERS, 1) | {"heun": 2, "rk4": 4}  # network calls a step; the last step has one
MU, S = 1.5, 0.5


class Gaussian:
    """The best possible network for data N(mu, s^2), where mu is what the condition says. s = 0 is a point mass."""

    def __init__(self, path, name, s=S):
        self.path, self.target, self.s, self.calls = path, TARGETS[name], s, 0

    def __call__(self, x, t, cond):
        self.calls += 1
        c = self.path(t)
        mu = cond.vector.reshape(len(x), -1, *[1] * (x.ndim - 2)) if x.ndim > 2 else cond.vector
        alpha, sigma, a, b = (expand(v, x) for v in (c.alpha, c.sigma, *self.target(c)))
        surprise = (x - alpha * mu) / (alpha**2 * self.s**2 + sigma**2)
        return a * (mu + alpha * self.s**2 * surprise) + b * sigma * surprise

    def predict(self, n, mu: float = MU, dtype=torch.float64):
        return predictor(self, says(mu, n, dtype), path=self.path, target=self.target)


def says(mu: float, n: int, dtype=torch.float64) -> Cond:
    return Cond(torch.zeros(n, 1, 1), torch.ones(n, 1, dtype=torch.bool), torch.full((n, 1), mu, dtype=dtype))


def spread(path, t, s=S):
    c = path(t)
    return (c.alpha**2 * s**2 + c.sigma**2).sqrt()


def never():
    raise AssertionError("a deterministic sampler drew noise")


def last(steps):
    *_, step = steps
    return step


def even(n: int, end: float = 0.0, start: float = 1.0):
    return torch.linspace(start, end, n + 1, dtype=torch.float64)


def error(path, name, n, end):
    """Largest error at time `end` of n steps that start exactly on nine solutions of the ODE."""
    z, times = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None], even(n, end)
    c, std = path(times), spread(path, times)
    noise = (c.alpha[0] * MU + std[0] * z) / c.sigma[0]
    predict = Gaussian(path, "flow").predict(9)
    x = last(SAMPLERS[name](predict, noise, times, path, never)).x
    return (x - c.alpha[-1] * MU - std[-1] * z).abs().max().item()


@paths
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(path, name, order):
    # Down to t = 0.05: the theorems on DPM-Solver exclude t = 0, where the log-SNR is infinite.
    coarse, fine = (error(path, name, n, end=0.05) for n in (128, 256))
    measured = torch.tensor(coarse / fine).log2().item()
    assert measured == pytest.approx(order, abs=0.08)
    assert fine < (8e-3 if order == 1 else 2e-4)


@pytest.mark.parametrize("path", [Linear(), Cosine(), VP.rescaled(20000)], ids=lambda p: p.type)
def test_order_of_convergence_of_rk4(path):
    # 20,000 betas: where cubics meet their curvature jumps, with 1000 betas by enough to stop rk4 at 1e-7.
    coarse, fine = (error(path, "rk4", n, end=0.2) for n in (16, 32))
    assert torch.tensor(coarse / fine).log2().item() == pytest.approx(4, abs=0.1)
    assert fine < 4e-7


@pytest.mark.parametrize("path", [Linear(), Cosine()], ids=lambda p: p.type)
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("rk4", 2), ("dpmpp_2m", 1.7)])
def test_order_of_convergence_down_to_the_data(path, name, order):
    # rk4's last step, to x0, is of second order whatever the others are.
    # Next to the data dpmpp_2m's steps in log-SNR stop shrinking: h^2 log(1 / h), about 1.7 here.
    coarse, fine = (error(path, name, n, end=0.0) for n in (128, 256))
    assert torch.tensor(coarse / fine).log2().item() == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_vp_converges_down_to_the_data(name):
    # sigma ~ sqrt(t) makes the last step of first order for everyone, with a small constant.
    coarse, fine = (error(VP(), name, n, end=0.0) for n in (50, 400))
    assert fine < coarse / 6
    assert fine < 0.01


@paths
@samplers
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_everyone_lands_on_a_point_mass(path, name, target, n):
    network = Gaussian(path, target, s=0.0)
    times = schedule(n, t_max=largest_start(path, TARGETS[target]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 2, 4, 4, generator=generator)
    predict = network.predict(3, mu=0.7, dtype=torch.float32)
    x = last(SAMPLERS[name](predict, noise, times, path, lambda: torch.randn(noise.shape, generator=generator))).x
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.full_like(x, 0.7), rtol=0, atol=1e-4)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.type)
@samplers
def test_the_same_sample_from_all_four_targets(path, name):
    times = even(12, start=0.995)
    noise = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = []
    for target in TARGETS:
        generator = torch.Generator().manual_seed(1)
        predict = Gaussian(path, target).predict(5)
        draw = lambda generator=generator: torch.randn(5, 1, dtype=torch.float64, generator=generator)  # noqa: E731
        drawn.append(torch.stack([step.x for step in SAMPLERS[name](predict, noise, times, path, draw)]))
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], rtol=1e-9, atol=1e-9)


@paths
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_start_before_one_is_from_sigma_times_noise(path, name):
    # Noise so scaled is a sample of x_t when the data has mean and spread 0; from there all land on it at once.
    seen = []
    predict = Gaussian(path, "x0", s=0.0).predict(1, mu=0.0)

    def watch(x, t):
        seen.append(x)
        return predict(x, t)

    noise = torch.tensor([[1.7]], dtype=torch.float64)
    times = even(4, start=0.6)
    list(SAMPLERS[name](watch, noise, times, path, never))
    torch.testing.assert_close(seen[0], path(times[:1]).sigma * noise)


@paths
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_guided_samples_are_exact(path, scale, name):
    """Guiding between N(m0, s^2) and N(m1, s^2) is sampling N(m0 + scale (m1 - m0), s^2), noise by noise."""
    z, times = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None], even(150)
    network = Gaussian(path, "flow")
    predict = guided(network, says(1.0, 9), says(0.0, 9), scale, (0.0, 1.0), path=path, target=network.target)
    c, std = path(times), spread(path, times)
    noise = (c.alpha[0] * scale + std[0] * z) / c.sigma[0]
    x = last(SAMPLERS[name](predict, noise, times, path, never)).x
    torch.testing.assert_close(x, scale + S * z, rtol=0, atol=0.04)
    assert network.calls == 149 * CALLS[name] + 1


def test_guidance_within_an_interval_is_exact():
    """Three stretches, each an exact solution about its own mean: conditional, guided, conditional."""
    path, scale, z = Linear(), 4.0, torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    network = Gaussian(path, "x0")
    predict = guided(network, says(1.0, 9), says(0.0, 9), scale, (0.2, 0.7), path=path, target=network.target)
    x = last(heun(predict, z, even(500), path, never)).x

    high, low = (torch.tensor(t, dtype=torch.float64) for t in (0.7, 0.2))
    z = ((1 - high) * 1.0 + spread(path, high) * z - (1 - high) * scale) / spread(path, high)
    z = ((1 - low) * scale + spread(path, low) * z - (1 - low) * 1.0) / spread(path, low)
    torch.testing.assert_close(x, 1.0 + S * z, rtol=0, atol=0.02)


@pytest.mark.parametrize("n", [1, 2, 7, 28])
def test_ddim_is_euler_on_the_linear_path(n):
    def predict(x, t):  # any network, not only an oracle
        return predictor(
            lambda x, t, cond: torch.sin(3 * x) - t[:, None], says(0, 6), path=path, target=TARGETS["flow"]
        )(x, t)

    noise = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path, times = Linear(), even(n)
    for a, b in zip(
        ddim(0)(predict, noise, times, path, never), euler(predict, noise, times, path, never), strict=True
    ):
        torch.testing.assert_close(a.x, b.x)
    path = Cosine()
    differ = last(ddim(0)(predict, noise, times, path, never)).x - last(euler(predict, noise, times, path, never)).x
    assert n == 1 or differ.abs().max() > 1e-3


def terminal(path, times, s):
    """Mean and std of ancestral sampling with the best network, step by step from Bayes' rule."""
    c = path(times)
    mean, variance = 0.0, c.sigma[0].item() ** 2
    for i in range(len(times) - 1):
        (a, g), (a_s, g_s) = ((c.alpha[k].item(), c.sigma[k].item()) for k in (i, i + 1))
        gain = a * s**2 / (a**2 * s**2 + g**2)  # E[x0 | x] = MU + gain (x - a MU)
        if g_s == 0:
            mean, variance = MU + gain * (mean - a * MU), gain**2 * variance
            break
        r = a / a_s
        added = g**2 - r**2 * g_s**2  # x = r x_s + N(0, added), and x_s = a_s x0 + N(0, g_s^2)
        posterior = 1 / (1 / g_s**2 + r**2 / added)
        slope = posterior * (a_s * gain / g_s**2 + r / added)
        offset = posterior * a_s * (MU - gain * a * MU) / g_s**2
        mean, variance = slope * mean + offset, slope**2 * variance + posterior
    return mean, variance**0.5


@paths
@pytest.mark.parametrize("n", [5, 50, 1000])
def test_terminal_statistics_of_ddpm(path, n):
    count, generator = (20000 if n < 1000 else 4000), torch.Generator().manual_seed(n)
    noise = torch.randn(count, 1, generator=generator)
    predict = Gaussian(path, "v").predict(count, dtype=torch.float32)
    x = last(ddpm(predict, noise, schedule(n), path, lambda: torch.randn(count, 1, generator=generator))).x
    mean, std = terminal(path, schedule(n), S)
    assert x.mean().item() == pytest.approx(mean, abs=4 * std / count**0.5)
    assert x.std().item() == pytest.approx(std, abs=4 * std / (2 * count) ** 0.5)
    # And those are the data's own, up to what n steps cost: beta-tilde leaves out the variance of x0 given x_t.
    assert mean == pytest.approx(MU, abs=0.01)
    assert std == pytest.approx(S, rel=9 / n)


@paths
def test_ddpm_is_ddim_with_eta_one(path):
    noise = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    predict = Gaussian(path, "x0").predict(50)
    drawn = []
    for sampler in (ddpm, ddim(1)):
        generator = torch.Generator().manual_seed(1)
        draw = lambda generator=generator: torch.randn(50, 1, dtype=torch.float64, generator=generator)  # noqa: E731
        drawn.append(last(sampler(predict, noise, even(30), path, draw)).x)
    torch.testing.assert_close(*drawn)


@paths
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_guided_samples_with_fresh_noise_are_exact(path, scale, name):
    """Step by step those of N(m0 + scale (m1 - m0), s^2), draw by draw."""
    network = Gaussian(path, "v")
    guide = guided(network, says(1.0, 9), says(0.0, 9), scale, (0.0, 1.0), path=path, target=network.target)
    drawn = []
    for predict in (guide, network.predict(9, mu=scale)):
        g = torch.Generator().manual_seed(0)
        draw = lambda g=g: torch.randn(9, 1, dtype=torch.float64, generator=g)  # noqa: E731
        drawn.append(torch.stack([step.x for step in SAMPLERS[name](predict, draw(), even(20), path, draw)]))
    torch.testing.assert_close(*drawn, rtol=1e-9, atol=1e-9)


@paths
@pytest.mark.parametrize("level", [0.0, 0.7, 2.0])
def test_a_short_transition_is_that_of_the_sde(path, level):
    # dx = (slope + g^2 eps / (2 sigma)) dt + g dw, as the score is -eps / sigma; g^2 = level^2 sigma d_sigma.
    t = torch.tensor([0.15, 0.4, 0.6, 0.95], dtype=torch.float64)
    dt, p = 1e-7, Prediction(*torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    c = path(t)
    mean, std = transition(p, t, t - dt, path, level)
    alpha, sigma, d_alpha, d_sigma = (expand(v, p.x0) for v in c)
    drift = d_alpha * p.x0 + d_sigma * p.eps + level**2 * d_sigma * p.eps / 2
    torch.testing.assert_close((alpha * p.x0 + sigma * p.eps - mean) / dt, drift, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std**2 / dt, level**2 * c.sigma * c.d_sigma, rtol=1e-4, atol=1e-7)


@paths
@pytest.mark.parametrize("target", TARGETS)
def test_sde_without_noise_is_ddim(path, target):
    predict, noise = Gaussian(path, target).predict(5), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    times = even(9, start=0.995)
    for a, b in zip(
        sde(0.0)(predict, noise, times, path, never), ddim(0.0)(predict, noise, times, path, never), strict=True
    ):
        torch.testing.assert_close(a, b)
    # which on the linear path is Euler's method (test_ddim_is_euler_on_the_linear_path)


def moments(path, times, level):
    """Mean and std of `sde` at each time with the best network: each transition's mean is a line in x, of which two
    points are asked."""
    predict, points = Gaussian(path, "flow").predict(2), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    means, variances = [torch.zeros(()).double()], [path(times).sigma[0] ** 2]
    for t, s in pairwise(times):
        step = transition(predict(points, t.expand(2)), t.expand(2), s.expand(2), path, level)
        offset, slope = step.mean[0, 0], step.mean[1, 0] - step.mean[0, 0]
        means.append(offset + slope * means[-1])
        variances.append(slope**2 * variances[-1] + step.std[0] ** 2)
    return torch.stack(means), torch.stack(variances).sqrt()


@paths
@pytest.mark.parametrize("level", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("n", [5, 50])
def test_statistics_of_sde_at_every_time(path, level, n):
    count, generator = 20000, torch.Generator().manual_seed(n)
    draw = lambda: torch.randn(count, 1, dtype=torch.float64, generator=generator)  # noqa: E731
    steps = list(sde(level)(Gaussian(path, "flow").predict(count), draw(), even(n), path, draw))
    mean, std = (m[1:] for m in moments(path, even(n), level))
    x = torch.cat([step.x for step in steps], 1)  # (count, N)
    assert ((x.mean(0) - mean).abs() < 4.5 * std / count**0.5).all()
    assert ((x.std(0) - std).abs() < 4.5 * std / (2 * count) ** 0.5).all()


@paths
@pytest.mark.parametrize("level", [0.7, 1.0, 2.0])
def test_sde_keeps_the_marginals_of_the_ode(path, level):
    errors = []
    for n in (400, 800):
        mean, std = moments(path, even(n), level)
        # Noise is no sample of VP at t = 1: alpha MU = 0.01 is missing.
        assert (mean - path(even(n)).alpha * MU).abs().max() < 0.01
        errors.append((std - spread(path, even(n))).abs().max().item())
    assert errors[1] < 0.01
    # On VP the steps next to the data, where sigma ~ sqrt(t), take over.
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1 if path.type != "vp" else 0.6)


@paths
def test_sde_draws_a_mixture_of_two_gaussians(path):
    share, mu, s = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [-1.0, 2.0], [0.5, 0.3]))

    def predict(x, t):  # the best x0: each Gaussian's own, as often as x came from it
        alpha, sigma, _, _ = (expand(v, x) for v in path(t))  # (B, 1) each
        variance = alpha**2 * s**2 + sigma**2  # (B, 2)
        odds = (share.log() - variance.log() / 2 - (x - alpha * mu) ** 2 / (2 * variance)).softmax(1)  # (B, 2)
        x0 = (odds * (mu + alpha * s**2 / variance * (x - alpha * mu))).sum(1, keepdim=True)  # (B, 1)
        return Prediction(x0, (x - alpha * x0) / sigma)

    count, generator = 20000, torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(count, 1, dtype=torch.float64, generator=generator)  # noqa: E731
    times = even(200)
    steps = list(sde(1.0)(predict, draw(), times, path, draw))
    for i in (60, 120, 160, 200):
        c, x = path(times[i : i + 1]), steps[i - 1].x.sort(0).values  # (count, 1)
        cdf = (share * torch.special.ndtr((x - c.alpha * mu) / (c.alpha**2 * s**2 + c.sigma**2).sqrt())).sum(1)
        kolmogorov = (cdf - (torch.arange(count) + 0.5) / count).abs().max()
        assert kolmogorov < 1.63 / count**0.5 + 0.004  # 1 %, and what 200 steps cost
    mean, variance = (share * mu).sum(), (share * (mu**2 + s**2)).sum() - (share * mu).sum() ** 2
    assert x.mean().item() == pytest.approx(mean.item(), abs=4 * (variance / count).sqrt().item() + 0.01)
    assert x.var().item() == pytest.approx(variance.item(), rel=0.02)


@samplers
@paths
def test_yields_n_steps_and_asks_at_every_time_but_the_last(path, name):
    asked, drawn = [], []
    predict = Gaussian(path, "x0").predict(2)

    def watch(x, t):
        asked.append(t[0].item())
        return predict(x, t)

    def draw():
        drawn.append(1)
        return torch.zeros(2, 1, dtype=torch.float64)

    times = even(6)
    steps = list(SAMPLERS[name](watch, torch.ones(2, 1, dtype=torch.float64), times, path, draw))
    wanted, halves = times[:-1].tolist(), ((times[:-2] + times[1:-1]) / 2).tolist()
    wanted += {"heun": wanted[1:], "rk4": wanted[1:] + 2 * halves}.get(name, [])
    assert len(steps) == 6
    assert len(drawn) == (5 if name in STOCHASTIC else 0)  # no noise on the last step
    assert asked == pytest.approx(sorted(wanted, reverse=True))
    torch.testing.assert_close(steps[-1].x, steps[-1].x0)  # the last step is to what was expected there


@samplers
def test_stopping_early_asks_no_more(name):
    network = Gaussian(Linear(), "x0")
    next(
        SAMPLERS[name](
            network.predict(2), torch.ones(2, 1, dtype=torch.float64), even(6), Linear(), lambda: torch.ones(2, 1)
        )
    )
    assert network.calls == CALLS[name]


@samplers
def test_a_batch_as_wide_as_the_picture_is_four_single_samples(name):
    path, cond = (
        VP(),
        Cond(torch.zeros(4, 1, 1), torch.ones(4, 1, dtype=torch.bool), torch.tensor([[-1.0], [0], [1], [2]])),
    )
    noise, extra = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    network = Gaussian(path, "v")

    def sample(rows):
        some = Cond(cond.tokens[rows], cond.mask[rows], cond.vector[rows])
        predict = guided(
            network, some, says(0, len(some.vector), torch.float32), 2.0, (0, 1), path=path, target=network.target
        )
        return last(SAMPLERS[name](predict, noise[rows], schedule(5), path, lambda: extra[rows])).x

    torch.testing.assert_close(sample(slice(4)), torch.cat([sample(slice(i, i + 1)) for i in range(4)]))


def test_choose():
    assert choose("heun") is heun
    assert choose("rk4") is rk4
    assert choose("dpmpp_2m") is dpmpp_2m
    for arguments, words in [
        (("eular",), "sampler is 'eular'; allowed: ddpm, .*nearest: euler"),
        (("ddim", 1.5), "eta is 1.5; allowed 0 <= eta <= 1"),
        (("euler", 0.5), "eta is 0.5 with sampler euler; only ddim reads eta"),
    ]:
        with pytest.raises(ValueError, match=words):
            choose(*arguments)


def test_choose_ddim_with_eta_draws():
    drawn = []
    predict = Gaussian(Linear(), "x0").predict(1)
    noise = torch.ones(1, 1, dtype=torch.float64)
    list(choose("ddim", 0.5)(predict, noise, even(4), Linear(), lambda: drawn.append(1) or noise))
    assert len(drawn) == 3
    list(choose("ddim")(predict, noise, even(4), Linear(), never))
