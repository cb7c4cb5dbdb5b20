"""Paths, times and their densities against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fromnoise.diffusion.path import VP, Cosine, Linear, log_alpha_bar
from fromnoise.diffusion.times import LogitNormal, Uniform
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.plots.schedules import compared, curve, density, figure, log_snr, trained
from fromnoise.plots.style import image
from fromnoise.recipes import named

HALF = torch.tensor([0.5], dtype=torch.float64)


@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_log_snr_is_0_halfway(path: Linear | Cosine) -> None:
    assert float(log_snr(path, HALF)) == pytest.approx(0, abs=1e-12)


def test_log_snr_of_closed_forms() -> None:
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    assert torch.allclose(log_snr(Linear(), t), 2 * ((1 - t) / t).log())
    assert torch.allclose(log_snr(Cosine(), t), -2 * (t * math.pi / 2).tan().log())
    bar = math.exp(log_alpha_bar(1e-4, 0.02, 1000, 1)[500])
    assert float(log_snr(VP(), HALF)) == pytest.approx(math.log(bar / (1 - bar)), rel=1e-9)


def test_a_curve_reaches_both_ends_and_falls() -> None:
    line = curve(Linear(), 101)
    assert line.t[0] < 1e-5 and line.t[-1] > 1 - 1e-5
    assert bool((line.log_snr.diff() < 0).all()) and bool(line.log_snr.isfinite().all())
    assert torch.allclose(line.alpha, 1 - line.t) and torch.allclose(line.sigma, line.t)


def test_density_of_uniform_times_is_1() -> None:
    edges, heights = density(trained(Uniform()), 0, 1, 20)
    assert len(edges) == 21
    assert torch.allclose(heights, torch.ones(20, dtype=torch.float64), atol=1e-3)


def test_density_of_logit_normal_times_is_normal_in_log_snr() -> None:
    """On the linear path log-SNR is -2 logit(t), and a shift s adds ln(s) to logit(t)."""
    values = log_snr(Linear(), trained(LogitNormal(mean=0.4, std=0.7, shift=3)))
    edges, heights = density(values, -8, 4, 120)
    middles = (edges[1:] + edges[:-1]) / 2
    mean, std = -2 * (0.4 + math.log(3)), 1.4
    normal = (-(((middles - mean) / std) ** 2) / 2).exp() / (std * math.sqrt(2 * math.pi))
    assert (heights - normal).abs().max() < 2e-3


def test_the_runs_own_path_is_compared_once() -> None:
    assert list(compared(Linear()).values()).count(Linear()) == 1
    odd = VP(beta_start=0.002, beta_end=0.03)
    assert next(iter(compared(odd).values())) == odd
    assert len(compared(odd)) == len(compared(Linear())) + 1


def test_the_figure_shows_the_run_and_its_sampler() -> None:
    config = named("sd3").model.model_copy(update={"sampling": Sampling(steps=7)})
    drawn = figure(config)
    mixing, ratio, by_time, _ = drawn.axes
    thick = [line for line in ratio.lines if line.get_linewidth() == 3]
    assert [line.get_label() for line in thick] == ["linear (this run)"]
    x, y = np.asarray(thick[0].get_xdata()), np.asarray(thick[0].get_ydata())
    assert np.allclose(y[1:-1], 2 * np.log((1 - x[1:-1]) / x[1:-1]))
    assert len(mixing.lines) == 8
    ticks = by_time.collections[0].get_segments()  # type: ignore[attr-defined]
    assert np.allclose([tick[0][0] for tick in ticks], [1 - k / 7 for k in range(7)], atol=1e-5)
    pixels = np.asarray(image(drawn, 40))
    assert pixels.shape == (272, 400, 3) and 0.02 < (pixels < 200).mean() < 0.5


def test_every_path_can_be_drawn() -> None:
    for path in (Cosine(), VP(beta_start=0.002, beta_end=0.03)):
        assert len(figure(ModelConfig(path=path)).axes) == 4
