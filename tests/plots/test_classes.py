"""The grid of classes: which there are, and where each is drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fromnoise.data.mnist import WORDS
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.plots.classes import SEEDS, Classes, classes_of, figure, refusal
from fromnoise.plots.subject import Ask, Subject, Wish


def test_classes_of_labels_have_their_data_sets_names(subject: Callable[..., Subject]) -> None:
    found = classes_of(subject("dit", "label"), Wish())
    assert list(found.rows)[:2] == ["0 zero", "1 one"] and len(found.rows) == 10
    assert found.rows["7 seven"] == [Ask("", 7, "7 seven")] * SEEDS
    assert list(classes_of(subject("dit", "label", None), Wish()).rows)[7] == "class 7"


def test_classes_of_text_are_known_by_the_run_or_by_the_words(subject: Callable[..., Subject]) -> None:
    for data in ("mnist", None):
        rows = classes_of(subject("mmdit", "text", data), Wish()).rows
        assert [row[0].prompt for row in rows.values()] == [f"a handwritten {word}" for word in WORDS]
    shapes = classes_of(subject("mmdit", "text", "shapes"), Wish())
    assert shapes.columns[0] == "circle" and shapes.rows["blue"][5].prompt == "a blue ring"
    assert len(shapes.rows) * len(shapes.columns) == 48


def test_prompts_are_classes_too(subject: Callable[..., Subject]) -> None:
    assert list(classes_of(subject(), Wish(("a two", "a six"))).rows) == ["a two", "a six"]
    assert list(classes_of(subject("dit", "label"), Wish(("3",))).rows) == ["3 three"]


def test_every_cell_is_its_class_and_seed(build: Callable[..., Pipeline]) -> None:
    pipeline = build("dit", "label")
    asks = [Ask("", label, str(label)) for label in (2, 5)]
    drawn = figure(pipeline, Classes((), {ask.name: [ask] * 3 for ask in asks}), seed=6, steps=2)
    assert len(drawn.axes) == 6
    assert drawn.axes[2].get_title(loc="center") == "seed 8"
    pictures = pipeline([""] * 3, steps=2, seed=6, labels=[5] * 3)
    for axes, picture in zip(drawn.axes[3:], pictures, strict=True):
        assert np.array_equal(np.asarray(axes.images[0].get_array()), np.asarray(picture.convert("RGB")))


def test_what_has_no_classes_is_refused(subject: Callable[..., Subject]) -> None:
    assert "unconditional" in refusal(subject("dit", "none"), Wish())
    assert "unconditional" in refusal(subject("dit", "none"), Wish(("a",)))
    assert refusal(subject("dit", "label"), Wish()) == ""
