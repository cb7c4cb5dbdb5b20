"""The procedural data set: true captions, no held-out pair, no state, and fast enough."""

import hashlib
import time
from random import Random

import numpy as np
import pytest
import torch

from fromnoise.data.config import ShapesConfig
from fromnoise.data.scenes import (
    BACKGROUND,
    COLOURS,
    GAP,
    HELD_OUT,
    MARGIN,
    SHAPES,
    SIDE,
    TASKS,
    Group,
    Prompt,
    Thing,
    draw_prompt,
    draw_things,
    stands,
)
from fromnoise.data.shapes import ShapesData, draw_scene, render

CANVASES = [(48, 48), (64, 64), (32, 64), (64, 32)]


def test_every_caption_is_true_of_its_scene_and_no_held_out_pair_appears() -> None:
    rng = Random(0)
    tasks, said = set(), set()
    for _ in range(3000):
        prompt, things = draw_scene(rng)
        assert prompt.holds(things), prompt
        assert not any((thing.colour, thing.shape) in HELD_OUT for thing in things), things
        tasks.add(prompt.task)
        said |= {word for pair in HELD_OUT for word in [" ".join(pair)] if word in prompt.text}
        for i, a in enumerate(things):
            assert MARGIN + a.radius <= min(a.x, a.y) and max(a.x, a.y) <= SIDE - MARGIN - a.radius
            assert all(max(abs(a.x - b.x), abs(a.y - b.y)) >= a.radius + b.radius + GAP for b in things[:i])
    assert tasks == set(TASKS)
    assert not said


def test_held_out_prompts_name_a_held_out_pair_and_can_be_drawn() -> None:
    rng = Random(1)
    for task in ("colors", "position", "color_attr"):
        prompt = draw_prompt(rng, task, held_out=True)
        assert any((group.colour, group.shape) in HELD_OUT for group in prompt.groups)
        assert prompt.holds(draw_things(rng, prompt))


def test_all_shapes_colours_sizes_and_counts_occur() -> None:
    rng = Random(2)
    scenes = [draw_scene(rng)[1] for _ in range(2000)]
    seen = {(t.shape, t.colour, t.size) for things in scenes for t in things}
    assert len({(shape, colour) for shape, colour, _ in seen}) == len(SHAPES) * len(COLOURS) - len(HELD_OUT)
    assert {size for *_, size in seen} == {"small", "large"}
    assert {len(things) for things in scenes} == {1, 2, 3, 4}


CIRCLE, STAR = Thing("circle", "red", 5, 8, 16), Thing("star", "blue", 7, 24, 16)


@pytest.mark.parametrize(
    ("groups", "relation", "things", "true"),
    [
        ((Group("circle"),), None, [CIRCLE], True),
        ((Group("circle"),), None, [CIRCLE, STAR], False),  # one too many
        ((Group("circle"), Group("star")), None, [STAR, CIRCLE], True),
        ((Group("circle"), Group("star")), None, [CIRCLE], False),
        ((Group("circle", "blue"), Group("star", "red")), None, [CIRCLE, STAR], False),  # colours swapped
        ((Group("circle", size="large"),), None, [CIRCLE], False),
        ((Group("circle"), Group("star")), "left of", [STAR, CIRCLE], True),
        ((Group("circle"), Group("star")), "right of", [STAR, CIRCLE], False),
        ((Group("circle"), Group("star")), "above", [STAR, CIRCLE], False),
        ((Group("star", count=2),), None, [STAR, STAR], True),
        ((Group("star", count=2),), None, [STAR, STAR, STAR], False),
    ],
)
def test_rules(groups: tuple[Group, ...], relation: str | None, things: list[Thing], true: bool) -> None:
    assert Prompt("", "", groups, relation).holds(things) is true


def test_a_relation_needs_more_than_a_tenth_of_both_widths() -> None:
    a, b = Thing("circle", "red", 5, 10, 16), Thing("circle", "red", 5, 11.9, 16)
    assert not stands(a, "left of", b)  # 1.9 apart, 2 are forgiven
    assert stands(a, "left of", Thing("circle", "red", 5, 12.5, 16))


def test_words() -> None:
    assert Group("circle", "red").words() == "a red circle"
    assert Group("ring", "orange", "small").words() == "a small orange ring"
    assert Group("cross", "orange").words() == "an orange cross"
    assert Group("cross", count=3).words() == "three crosses"


def test_pixels_show_the_scene() -> None:
    for size in (32, 64):
        scale = size // 32
        picture = render([[Thing("square", "red", 7, 10, 12), Thing("ring", "blue", 5, 24, 24)]], size)[0]
        assert picture.shape == (size, size, 3) and picture.dtype == np.float32
        np.testing.assert_allclose(picture[12 * scale, 10 * scale] * 255, COLOURS["red"], atol=0.1)
        np.testing.assert_allclose(picture[24 * scale, 24 * scale] * 255, BACKGROUND, atol=0.1)  # the ring's hole
        np.testing.assert_allclose(picture[0, 0] * 255, BACKGROUND, atol=0.1)
        red = np.abs(picture * 255 - COLOURS["red"]).sum(-1) < 1
        assert abs(red.sum() / scale**2 - (0.9 * 14) ** 2) < 25


def test_what_training_shows_is_what_it_showed_to_the_model_that_ships() -> None:
    rng = Random("train/0/0")
    scenes = [draw_scene(rng) for _ in range(300)]
    assert ShapesConfig().build(0).train(0, 8).captions == [prompt.text for prompt, _ in scenes[:8]]
    told = repr([(p.text, [(t.shape, t.colour, t.radius, t.x, t.y) for t in things]) for p, things in scenes])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "f0d7ca10c6c82086"


@pytest.mark.parametrize("canvas", CANVASES)
def test_a_larger_canvas_has_more_places_for_objects_of_the_same_size(canvas: tuple[int, int]) -> None:
    rng = Random(3)
    scenes = [draw_scene(rng, canvas) for _ in range(400)]
    things = [thing for _, scene in scenes for thing in scene]
    assert all(prompt.holds(scene) for prompt, scene in scenes)
    assert {thing.radius for thing in things} == {5, 7} and {len(scene) for _, scene in scenes} == {1, 2, 3, 4}
    for reach, places in zip(canvas, ({t.y for t in things}, {t.x for t in things}), strict=True):
        assert places == set(range(8, reach - 5, 4))  # small ones reach furthest: 5 + MARGIN from the edge
    data = ShapesData(ShapesConfig(), 0, canvas)
    assert data.validation(4).images.shape == (4, *data.image_shape) == (4, 3, *canvas)


def test_a_larger_canvas_shows_the_same_pixels_and_then_some() -> None:
    rng = Random(4)
    scenes = [draw_scene(rng)[1] for _ in range(50)]
    for size in (32, 64):
        usual, larger = render(scenes, size), render(scenes, size, (48, 64))
        assert larger.shape == (50, size * 3 // 2, size * 2, 3)
        assert np.array_equal(larger[:, :size, :size], usual)
        beyond = np.concatenate([larger[:, size:].reshape(-1, 3), larger[:, :, size:].reshape(-1, 3)])
        np.testing.assert_allclose(beyond * 255, np.broadcast_to(BACKGROUND, beyond.shape), atol=0.1)
    far = [Thing(thing.shape, thing.colour, thing.radius, thing.x + 32, thing.y + 16) for thing in scenes[0]]
    assert np.array_equal(render([far], 32, (48, 64))[0, 16:, 32:], render(scenes[:1], 32)[0])


def test_batches_depend_on_seed_and_step_alone() -> None:
    data, again, other = ShapesConfig().build(3), ShapesConfig().build(3), ShapesConfig().build(4)
    data.train(0, 8)  # what was asked before does not matter
    one, two = data.train(7, 8), again.train(7, 8)
    assert torch.equal(one.images, two.images) and one.captions == two.captions and torch.equal(one.labels, two.labels)
    assert not torch.equal(one.images, other.train(7, 8).images)
    assert not torch.equal(one.images, data.train(8, 8).images)
    assert torch.equal(data.validation(8).images, other.validation(8).images)
    assert one.images.shape == (8, 3, 32, 32) and one.images.min() >= -1 and one.images.max() <= 1
    assert [SHAPES[k] in caption for k, caption in zip(one.labels, one.captions, strict=True)] == [True] * 8


def test_rendering_outpaces_training_by_far() -> None:
    data = ShapesConfig().build(0)
    data.train(0, 64)
    begin = time.process_time()
    for step in range(5):
        data.train(step, 64)
    assert 5 * 64 / (time.process_time() - begin) > 1500  # pictures a second of one core; training reaches some 300
