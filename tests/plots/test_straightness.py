"""Straightness of ways whose shape is known: a line, and a quarter of a circle."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fromnoise.diffusion.path import Cosine, Linear
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.straightness import figure, own_way, straightness
from fromnoise.plots.subject import Ask

N = 4000


def arc() -> tuple[torch.Tensor, torch.Tensor]:
    """From (0, 1) to (1, 0) around the origin, one way (N + 1, 1, 2)."""
    t = torch.linspace(1, 0, N + 1, dtype=torch.float64)
    return t, torch.stack(((t * math.pi / 2).cos(), (t * math.pi / 2).sin()), 1)[:, None]


def test_a_straight_way() -> None:
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)  # (B, C, H, W) each
    t = torch.tensor([1, 0.9, 0.5, 0.2, 0], dtype=torch.float64)
    s = straightness(t, own_way(Linear(), t, torch.stack([start, start, start, end, end])))
    assert s.ratio.tolist() == pytest.approx([1, 1, 1])
    assert s.score.abs().max() < 1e-12 and s.deviation.abs().max() < 1e-12 and s.aside.max() < 1e-7
    assert s.along[:, 0].tolist() == pytest.approx([0, 0.1, 0.5, 0.8, 1])


def test_a_quarter_of_a_circle() -> None:
    s = straightness(*arc())
    assert float(s.ratio) == pytest.approx(2 * math.sqrt(2) / math.pi, rel=1e-6)  # chord sqrt(2), arc pi / 2
    # |v - c|^2 over |c|^2 = 2, with v of length pi / 2 and mean c: (pi^2 / 4 - 2) / 2.
    assert float(s.score) == pytest.approx((math.pi**2 / 4 - 2) / 2, rel=1e-6)
    assert float(s.aside.max()) == pytest.approx((1 - math.sqrt(0.5)) / math.sqrt(2), rel=1e-6)
    assert float(s.along[N // 2]) == pytest.approx(0.5)
    # At either end v is at 45 degrees to the chord.
    ends = (math.pi**2 / 4 + 2 - 2 * math.pi / 2 * math.sqrt(2) * math.sqrt(0.5)) / 2
    assert s.deviation[[0, -1], 0].tolist() == pytest.approx([ends, ends], rel=1e-3)


def test_a_straight_way_at_uneven_speed_is_straight_but_not_steady() -> None:
    t = torch.tensor([1.0, 0.5, 0.0])
    s = straightness(t, torch.tensor([0.0, 0.8, 1.0]).reshape(3, 1, 1))
    assert float(s.ratio) == pytest.approx(1)
    assert s.deviation[:, 0].tolist() == pytest.approx([0.36, 0.36])
    assert float(s.score) == pytest.approx(0.36)


def test_the_cosine_path_between_right_angles_is_the_circle() -> None:
    t, x = arc()
    assert torch.allclose(own_way(Cosine(), t, x), x)


def test_the_figure_tells_of_both_guidances_and_of_the_path(build: Callable[..., Pipeline]) -> None:
    drawn = figure(build("dit", "label", Linear()), [Ask("", 3, "three"), Ask("", 4, "four")])
    aside, bend = drawn.axes
    labels = [str(line.get_label()).partition(":")[0] for line in bend.lines]
    assert labels == ["guidance 1", "path alone", "guidance 2", "path alone"]
    assert "chord / arc 1.000, S 0.00" in str(bend.lines[1].get_label())
    assert len(aside.lines) == 2 * 16 + 2
    assert bend.xaxis_inverted()
