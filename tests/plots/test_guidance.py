"""The sweep: one noise, one scale a column."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.guidance import SCALES, figure, refusal, scales_of, sweep
from fromnoise.plots.subject import Ask, Subject, Wish

ASKS = [Ask("a handwritten two", 0, "two"), Ask("seven", 0, "seven")]


def test_every_picture_is_what_the_pipeline_draws_at_that_scale(build: Callable[..., Pipeline]) -> None:
    pipeline = build("mmdit", "text")
    rows = sweep(pipeline, ASKS, seed=4, steps=3)
    assert [len(row) for row in rows] == [len(SCALES)] * 2
    for ask, row in zip(ASKS, rows, strict=True):
        for scale, picture in zip(SCALES, row, strict=True):
            (alone,) = pipeline(ask.prompt, steps=3, guidance=scale, seed=4)
            assert np.array_equal(np.asarray(picture), np.asarray(alone))
    assert np.array_equal(np.asarray(rows[0][0]), np.asarray(rows[1][0]))  # scale 0 ignores the prompt
    assert not np.array_equal(np.asarray(rows[0][-1]), np.asarray(rows[1][-1]))


def test_a_model_of_classes_is_asked_for_its_class(build: Callable[..., Pipeline]) -> None:
    pipeline = build("dit", "label")
    ((_, one, *_),) = sweep(pipeline, [Ask("", 7, "seven")], seed=0, steps=2)
    (alone,) = pipeline("", steps=2, guidance=1.0, labels=[7])
    assert np.array_equal(np.asarray(one), np.asarray(alone))


def test_a_dollar_in_a_prompt_is_a_dollar(build: Callable[..., Pipeline]) -> None:
    """Between two of them matplotlib would read mathematics, and fail at what is none."""
    drawn = figure(build("mmdit", "text"), [Ask("two", 0, r"\no $5 \or $6")], seed=0, steps=1)
    drawn.savefig(io.BytesIO(), format="png")


def test_the_models_own_scale_is_bold(build: Callable[..., Pipeline]) -> None:
    titles = [axes.title for axes in figure(build("mmdit", "text"), ASKS[:1], steps=1).axes]
    assert [title.get_text() for title in titles if title.get_fontweight() == "bold"] == ["2"]


def test_the_models_own_scale_has_a_column() -> None:
    assert scales_of(Sampling(guidance=3.5)) == [0, 1, 2, 3, 3.5, 4, 7.5, 10]
    assert scales_of(Sampling(guidance=4)) == list(SCALES)


def test_without_a_condition_there_is_no_guidance(subject: Callable[..., Subject]) -> None:
    assert "guidance changes nothing" in refusal(subject("dit", "none"), Wish())
    assert refusal(subject("dit", "label"), Wish()) == ""
