"""Weights against closed forms, against the determinants, and against the objective that trains."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest
import torch

from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Cosine, Linear, Path
from fromnoise.diffusion.target import TARGETS
from fromnoise.diffusion.times import LogitNormal
from fromnoise.pipeline.config import ModelConfig
from fromnoise.plots.schedules import log_snr, trained
from fromnoise.plots.weights import PUBLISHED, figure, in_x0, of_objective, pressed
from fromnoise.recipes import named

Name = Literal["x0", "eps", "v", "flow"]
T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
PATHS = [Linear(), Cosine(), VP()]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.type)
def test_x0_weighs_1_and_eps_snr(path: Path) -> None:
    assert torch.allclose(in_x0(path, TARGETS["x0"], T), torch.ones_like(T))
    assert torch.allclose(in_x0(path, TARGETS["eps"], T), log_snr(path, T).exp())


def test_v_weighs_snr_plus_1_and_flow_one_over_sigma_squared() -> None:
    for path in (Cosine(), VP()):
        assert torch.allclose(in_x0(path, TARGETS["v"], T), log_snr(path, T).exp() + 1)
    assert torch.allclose(in_x0(Linear(), TARGETS["flow"], T), T**-2)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.type)
def test_ratios_are_the_objectives_weights(path: Path) -> None:
    for target in get_args(Name):
        for measure in get_args(Name):
            objective = Objective(target=target, measure=measure, max_weight=1e30)
            ratio = in_x0(path, TARGETS[measure], T) / in_x0(path, TARGETS[target], T)
            assert torch.allclose(objective.weight(path, T), ratio)
            assert torch.allclose(of_objective(objective, path, T), in_x0(path, TARGETS[measure], T))


def test_the_largest_weight_is_minded() -> None:
    objective = Objective(target="x0", measure="flow", max_weight=10.0)
    assert torch.allclose(of_objective(objective, Linear(), T), (T**-2).clamp(max=10))


def test_published_weights() -> None:
    snr = torch.tensor([0.01, 1.0, 4.0, 400.0], dtype=torch.float64)
    min_snr, edm, sigmoid = (weight(snr) for weight in PUBLISHED.values())
    assert min_snr.tolist() == pytest.approx([0.01, 1, 4, 5])
    sigma = snr**-0.5
    assert torch.allclose(edm, (sigma**2 + 0.25) / (sigma * 0.5) ** 2)  # Karras et al. 2022, Table 1
    assert torch.allclose(sigmoid / snr, 1 / (1 + (snr.log() - 2).exp()))


def test_where_the_loss_is_is_weight_times_density_in_v() -> None:
    """On the linear path with logit-normal times log-SNR is N(0, 2^2); the weight of x0 is 1."""
    times = trained(LogitNormal())
    edges, heights = pressed(lambda t: in_x0(Linear(), TARGETS["x0"], t), Linear(), times)
    middles = (edges[1:] + edges[:-1]) / 2
    expected = (-(middles**2) / 8).exp() / (1 + middles.exp())
    assert float((heights * edges.diff()).sum()) == pytest.approx(1)
    assert (heights - expected / (expected * edges.diff()).sum()).abs().max() < 3e-3


def test_an_objective_in_v_presses_where_it_is_trained() -> None:
    edges, heights = pressed(lambda t: in_x0(Cosine(), TARGETS["v"], t), Cosine(), trained(LogitNormal()))
    often, _ = np.histogram(log_snr(Cosine(), trained(LogitNormal())), edges, density=True)
    assert np.abs(heights.numpy() - often).max() < 3e-3


def test_the_figure_has_every_target_and_the_run() -> None:
    left, right = figure(named("shapes").model).axes
    labels = [str(line.get_label()) for line in left.lines]
    assert labels[:4] == ["x0 error", "eps error", "v error", "flow error"]
    assert labels[4:7] == list(PUBLISHED)
    assert labels[7] == "this run: x0 measured in flow, weight ≤ 10"
    assert len(right.lines) == 8 and left.get_yscale() == "log"
    assert np.asarray(left.lines[7].get_ydata()).max() == pytest.approx(10)


def test_targets_of_ones_own_have_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("score", "other"):
        monkeypatch.setitem(TARGETS, name, lambda c: (torch.zeros_like(c.sigma), -1 / c.sigma))
    left, _ = figure(named("shapes").model).axes
    lines = {str(line.get_label()): line for line in left.lines}
    assert list(lines)[3:7] == ["flow error", "score error", "other error", next(iter(PUBLISHED))]
    assert lines["other error"].get_color() == lines["x0 error"].get_color()  # colours go round


def test_recipes_of_every_path_can_be_drawn() -> None:
    for config in (named("sd1").model, ModelConfig(path=Cosine())):
        assert all(np.isfinite(np.asarray(line.get_ydata())).all() for line in figure(config).axes[1].lines)
