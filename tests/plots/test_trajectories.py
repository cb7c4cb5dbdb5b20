"""Film strips show the way that was gone: noise, times and pictures belong together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.subject import Ask
from fromnoise.plots.trace import times_of, trace
from fromnoise.plots.trajectories import figure, frames

ASKS = [Ask("a handwritten two", 0, "two"), Ask("seven", 0, "seven")]


def test_frames_are_even_and_end_at_the_ends() -> None:
    assert frames(24) == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    assert frames(3) == [0, 1, 2, 3]
    assert frames(1000)[-1] == 1000 and len(frames(1000)) == 9


def test_every_step_of_the_trace_is_ddims(build: Callable[..., Pipeline]) -> None:
    """x_s = alpha_s x0 + sigma_s eps with the x0 and eps of x_t: so the noise, and all times, are the stream's."""
    pipeline = build("mmdit", "text")
    way = trace(pipeline, ASKS, seed=3, steps=5)
    alpha, sigma, _, _ = pipeline.config.path(way.times)
    assert way.x.shape == way.x0.shape == (6, 2, 1, 16, 16)
    for i in range(5):
        eps = (way.x[i] - alpha[i] * way.x0[i]) / sigma[i]
        assert torch.allclose(way.x[i + 1], alpha[i + 1] * way.x0[i] + sigma[i + 1] * eps, atol=2e-5)
    assert torch.equal(way.x0[-1], way.x[-1])


def test_times_follow_the_models_shift(build: Callable[..., Pipeline]) -> None:
    config = build("mmdit", "text").config
    assert torch.allclose(times_of(config, 2), torch.tensor([1.0, 2 / 3, 0.0]))
    assert torch.allclose(times_of(config, 2, shift=1.0), torch.tensor([1.0, 0.5, 0.0]))


def test_the_figure_ends_in_the_pictures(build: Callable[..., Pipeline]) -> None:
    pipeline = build("mmdit", "text")
    drawn = figure(pipeline, ASKS, seed=3, steps=4)
    assert len(drawn.axes) == 2 * 2 * 5
    pictures = pipeline([ask.prompt for ask in ASKS], steps=4, seed=3, precision="float32")
    for row, picture in zip((0, 2), pictures, strict=True):
        shown = drawn.axes[5 * row + 4].images[0].get_array()
        assert np.array_equal(np.asarray(shown), np.asarray(picture.convert("RGB")))
    assert [axes.get_title(loc="center") for axes in drawn.axes[:5]] == [
        "t = 1.00", "t = 0.86", "t = 0.67", "t = 0.40", "t = 0.00"
    ]  # fmt: skip
