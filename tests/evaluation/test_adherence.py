"""The checker: it passes true pictures, and only those."""

import functools
from random import Random

import numpy as np
import pytest
from scipy import ndimage

from fromnoise.data.scenes import BACKGROUND, COLOURS, HELD_OUT, TASKS, Prompt, Thing
from fromnoise.data.shapes import draw_scene, render
from fromnoise.evaluation.judges.adherence import CHANCE, correct, draw_prompts, shows
from fromnoise.evaluation.judges.detect import SPECK, detect

MANY = 10_000
SOME = 3_000  # of them, where each is seen disturbed


@functools.cache
def scenes(count: int) -> tuple[list[Prompt], list[list[Thing]], np.ndarray]:
    rng = Random("checker")
    prompts, things = zip(*(draw_scene(rng) for _ in range(count)), strict=True)
    return list(prompts), list(things), render(list(things), 32)


def passed(prompts: list[Prompt], pictures: np.ndarray) -> float:
    return sum(correct(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)) / len(prompts)


def untrue(prompts: list[Prompt], things: list[list[Thing]]) -> list[Prompt]:
    """Another scene's prompt for each scene, one that does not happen to hold."""
    chosen = []
    for k, found in enumerate(things):
        other = (k + 1) % len(things)
        while prompts[other].holds(found):
            other = (other + 1) % len(things)
        chosen.append(prompts[other])
    return chosen


def test_true_renders_pass_and_shuffled_captions_fail() -> None:
    prompts, things, pictures = scenes(MANY)
    seen = [detect(picture) for picture in pictures]
    clean = [found.unexplained <= SPECK for found in seen]
    true = [ok and prompt.holds(found.things) for ok, prompt, found in zip(clean, prompts, seen, strict=True)]
    other = untrue(prompts, things)
    shuffled = [ok and prompt.holds(found.things) for ok, prompt, found in zip(clean, other, seen, strict=True)]
    assert sum(true) >= 0.995 * MANY
    assert sum(shuffled) <= 0.005 * MANY


def test_no_picture_fits_more_prompts_than_chance_says() -> None:
    """A single object fits as many as it is said to; one of two or more, the same or not, fits fewer."""
    asked = draw_prompts(30_000, 0)

    def fitting(*things: Thing) -> float:
        return float(np.mean([np.mean([prompt.holds(list(things)) for prompt in asked[task]]) for task in TASKS]))

    one, other = Thing("circle", "red", 5, 8, 8), Thing("ring", "blue", 5, 24, 24)
    assert fitting(one) == pytest.approx(CHANCE, rel=0.1) and pytest.approx(1 / 36) == CHANCE
    assert fitting(one, other) < CHANCE / 2 and fitting(one, one) < CHANCE / 2


def test_slight_noise_and_shift_change_nothing() -> None:
    prompts, _, pictures = scenes(SOME)
    rng = np.random.default_rng(0)
    noise = 0.04 * rng.standard_normal(pictures.shape, np.float32)
    shifted = np.roll(pictures, (1, -1), (1, 2))  # the margin is one pixel, so nothing wraps around
    assert passed(prompts, np.clip(shifted + noise, 0, 1)) >= 0.995


def test_noise_and_blur_fail() -> None:
    prompts, _, pictures = scenes(SOME)
    rng = np.random.default_rng(1)
    assert passed(prompts, rng.random(pictures.shape, np.float32)) <= 0.005
    assert passed(prompts, ndimage.gaussian_filter(pictures, (0, 1.5, 1.5, 0))) <= 0.005


def test_larger_pictures_are_judged_alike() -> None:
    rng = Random(5)
    prompts, things = zip(*(draw_scene(rng) for _ in range(60)), strict=True)
    assert passed(list(prompts), render(list(things), 64)) >= 0.98


@pytest.mark.parametrize("canvas", [(48, 48), (64, 64), (32, 64), (64, 32)])
def test_larger_canvases_are_judged_alike(canvas: tuple[int, int]) -> None:
    many, rng = 200, Random("canvas")
    prompts, things = zip(*(draw_scene(rng, canvas) for _ in range(many)), strict=True)
    seen = [detect(picture, 32) for picture in render(list(things), 32, canvas)]
    true = [shows(found, prompt) for found, prompt in zip(seen, prompts, strict=True)]
    assert sum(true) >= 0.995 * many
    shuffled = 0
    for k, found in enumerate(seen):
        others = (prompts[(k + step) % many] for step in range(1, many))
        shuffled += shows(found, next(other for other in others if not other.holds(things[k])))
    assert shuffled <= 0.005 * many


def test_a_larger_canvas_changes_nothing_that_is_seen() -> None:
    rng = Random(6)
    prompts, things = zip(*(draw_scene(rng) for _ in range(40)), strict=True)
    pictures, larger = render(list(things), 32), render(list(things), 32, (48, 64))
    for prompt, picture, wide in zip(prompts, pictures, larger, strict=True):
        assert detect(wide, 32) == detect(picture) == detect(picture, 32)
        assert correct(prompt, wide, 32)


@pytest.mark.parametrize("canvas", [(32, 32), (32, 64), (64, 32)])
def test_a_bar_along_any_edge_is_no_object(canvas: tuple[int, int]) -> None:
    height, width = canvas
    for thick in range(1, 16):
        for rows, columns in [
            (slice(0, thick), slice(None)),
            (slice(height - thick, None), slice(None)),
            (slice(None), slice(0, thick)),
            (slice(None), slice(width - thick, None)),
        ]:
            picture = np.full((height, width, 3), BACKGROUND, np.float32) / 255
            picture[rows, columns] = np.array(COLOURS["red"], np.float32) / 255
            seen = detect(picture, 32)
            assert not seen.things and seen.unexplained > 0


def test_what_is_wrong_is_seen() -> None:
    ring, star = Thing("ring", "green", 6, 9, 9), Thing("star", "pink", 4, 23, 22)
    picture = render([[ring, star]], 32)[0]
    seen = detect(picture)
    assert seen.unexplained == 0
    assert {(t.shape, t.colour, t.size) for t in seen.things} == {("ring", "green", "large"), ("star", "pink", "small")}
    for found in seen.things:
        true = ring if found.shape == "ring" else star
        assert abs(found.x - true.x) < 0.5 and abs(found.y - true.y) < 0.5
    stained = picture.copy()
    stained[27:31, 2:6] = (0.5, 0.3, 0.1)  # a brown smear is no object
    assert detect(stained).unexplained >= 12


def test_prompts_cover_the_tasks_evenly_and_leave_no_held_out_pair_in_them() -> None:
    drawn = draw_prompts(1000, 0)
    assert list(drawn) == [*TASKS, "held_out"]
    assert sum(len(drawn[task]) for task in TASKS) == 1000
    pairs = {task: [(g.colour, g.shape) for p in prompts for g in p.groups] for task, prompts in drawn.items()}
    assert not any(pair in HELD_OUT for task in TASKS for pair in pairs[task])
    assert all(any((g.colour, g.shape) in HELD_OUT for g in prompt.groups) for prompt in drawn["held_out"])
    assert draw_prompts(60, 0) == draw_prompts(60, 0) != draw_prompts(60, 1)
