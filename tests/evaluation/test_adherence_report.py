"""A whole evaluation of shapes, of painters whose mistakes are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.spoiled import INK, mask
from fromnoise.data.scenes import BACKGROUND, TASKS, Prompt, Thing, draw_things
from fromnoise.data.shapes import render
from fromnoise.evaluation.intervals import mean_share, wilson
from fromnoise.evaluation.judges import adherence
from fromnoise.evaluation.judges.adherence import draw_prompts, evaluate
from fromnoise.evaluation.judges.detect import FOREGROUND
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from tests.conftest import stirred

COUNT = 120
Scene = list[Thing]


class Painter:
    """Stands for a model: renders what a prompt says, changed by what this one does wrong."""

    config = ModelConfig()
    device = torch.device("cpu")

    def __init__(self, change: Callable[[Scene], Scene] = list, retouch: Callable[[np.ndarray], np.ndarray] = np.copy):
        self.change, self.retouch = change, retouch
        asked = [prompt for some in draw_prompts(COUNT, 0).values() for prompt in some]
        self.known: dict[str, Prompt] = {prompt.text: prompt for prompt in asked}

    def sampling(self, sampler: Any, steps: Any, guidance: Any) -> Sampling:
        return self.config.sampling

    def __call__(self, prompts: Sequence[str], steps: Any, guidance: Any, seed: int) -> list[Image.Image]:
        scenes = [self.change(draw_things(Random(text), self.known[text])) for text in prompts]
        levels = (self.retouch(render(scenes, 32)) * 255).round().astype(np.uint8)
        return [Image.fromarray(level) for level in levels]


def judged(*args: Any, **options: Any) -> dict[str, Any]:
    return evaluate(Painter(*args), COUNT, **options)  # type: ignore[arg-type]


def test_a_true_painter_is_right_and_has_nothing_drawn_instead(tmp_path: Path) -> None:
    (tmp_path / "failures.png").touch()  # of an earlier evaluation
    found = judged(sheets=tmp_path)
    assert set(found["adherence"].values()) == {1.0} and found["instead"]["wrong"] == 0
    assert not any(found["instead"]["reasons"].values())
    assert all(asked == seen for rows in found["instead"]["confusion"].values() for asked, row in rows.items()
               for seen in row)  # fmt: skip
    for task in (*TASKS, "held_out"):
        assert found["intervals"][task] == list(wilson(20, 20))
    low, high = found["intervals"]["overall"]
    assert 0.9 < low < 1 == pytest.approx(high)
    assert found["second"]["agree"] > 0.97 and not found["second"]["pleases_checker"]
    assert not (tmp_path / "failures.png").exists()


def test_a_mirrored_painter_draws_in_the_wrong_place(tmp_path: Path) -> None:
    def mirrored(things: Scene) -> Scene:
        return [Thing(t.shape, t.colour, t.radius, 32 - t.x, 32 - t.y) for t in things]

    found = judged(mirrored, sheets=tmp_path)
    assert found["adherence"]["position"] == 0 and found["adherence"]["counting"] == 1
    named = {reason: count for reason, count in found["instead"]["reasons"].items() if count}
    assert set(named) == {"wrong place"} and named["wrong place"] >= 20
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for asked, row in found["instead"]["confusion"]["place"].items():
        assert set(row) == {opposite[asked]}
    with Image.open(tmp_path / "failures.png") as sheet:
        assert sheet.width > 500


def test_a_painter_of_one_more_of_one_less_and_of_circles_alone() -> None:
    def doubled(things: Scene) -> Scene:
        (t, *others) = things
        far = (8 if t.x >= 16 else 24, 8 if t.y >= 16 else 24)
        return things if others else [t, Thing(t.shape, t.colour, 5, *far)]

    more = judged(doubled)["instead"]
    assert more["reasons"]["too many"] > 20 and more["confusion"]["count"]["one"]["two"] > 20
    less = judged(lambda things: things[:-1])["instead"]
    assert less["reasons"]["too few"] == less["wrong"] == COUNT + 20
    round_ = judged(lambda things: [Thing("circle", t.colour, t.radius, t.x, t.y) for t in things])
    assert set(round_["instead"]["confusion"]["shape"]["star"]) == {"circle"}
    assert round_["instead"]["reasons"]["wrong shape"] == round_["instead"]["wrong"] > 50


def test_a_painter_that_pleases_the_checker_is_exposed(tmp_path: Path) -> None:
    background = np.array(BACKGROUND, np.float32) / 255
    far = np.linalg.norm(INK["blue"] - background)
    ghost = mask(Thing("star", "blue", 13, 16, 16)) * np.float32(0.95 * FOREGROUND / far)

    def haunted(pictures: np.ndarray) -> np.ndarray:
        blank = np.linalg.norm(pictures - background, axis=-1, keepdims=True) < 0.01
        return pictures + ghost * blank * (INK["blue"] - pictures)

    found = judged(list, haunted, sheets=tmp_path)
    assert found["adherence"]["overall"] > 0.95 and found["second"]["overall"] < 0.1
    assert found["second"]["pleases_checker"] and found["second"]["only_checker"] > 0.9 * COUNT
    assert found["second"]["true_renders"]["only_checker"] <= 3
    assert (tmp_path / "disputed.png").is_file()


@pytest.fixture(scope="module")
def model() -> Pipeline:
    config = ModelConfig(
        backbone=MMDiTConfig(patch=8, width=32, depth=2, head_width=16), sampling=Sampling(steps=3, guidance=2.0)
    )
    return stirred(Pipeline.build(config, ["a red circle left of two blue stars"], 0).eval(), 0.1)


def test_a_seed_gives_the_same_numbers_to_the_last_digit(model: Pipeline) -> None:
    def without_time(found: dict[str, Any]) -> dict[str, Any]:
        return found | {"drawing": {k: v for k, v in found["drawing"].items() if not k.endswith("seconds")}}

    first = without_time(evaluate(model, 24, seed=5))
    assert without_time(evaluate(model, 24, seed=5)) == first
    assert first["instead"] != evaluate(model, 24, seed=6)["instead"]


def test_a_picture_hangs_on_its_seed_and_hardly_on_its_batch(model: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    judge = adherence.judge
    monkeypatch.setattr(adherence, "judge", lambda queue, pixels: drawn.append(pixels) or judge(queue, pixels))
    for batch in (1, 7, 64):
        evaluate(model, 18, seed=2, batch=batch)
    alone, few, many = (drawn[0], drawn[2], drawn[4])
    assert alone.shape == (21, 32, 32, 3) and alone.std() > 0.05
    for other in (few, many):
        assert np.abs(other - alone).max() <= 2 / 255


def test_too_few_prompts_are_refused(model: Pipeline) -> None:
    with pytest.raises(ValueError, match="n is 5; adherence needs 6 prompts at least"):
        evaluate(model, 5)


def test_the_interval_of_a_mean_of_shares() -> None:
    assert mean_share([(17, 20)]) == pytest.approx(wilson(17, 20))
    low, high = mean_share([(90, 100)] * 4)
    one = wilson(90, 100)
    assert 0.9 - low == pytest.approx((0.9 - one[0]) / 2) and high - 0.9 == pytest.approx((one[1] - 0.9) / 2)
    truth, rng = np.array([0.99, 0.8, 0.9, 0.97, 0.6, 0.95]), np.random.default_rng(0)
    inside = 0
    for right in rng.binomial(40, truth, (1000, 6)):
        low, high = mean_share([(int(r), 40) for r in right])
        inside += low <= truth.mean() <= high
    assert 0.93 <= inside / 1000 <= 0.985
