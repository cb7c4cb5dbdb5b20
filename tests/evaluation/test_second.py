"""The second judge: it agrees with the checker on true renders, and not on pictures made to please the checker."""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from benchmarks.shapes_judge import train
from benchmarks.spoiled import INK, SPOILS, mask, spoil
from fromnoise.data.scenes import BACKGROUND, Prompt, Thing, draw_prompt, draw_things
from fromnoise.data.shapes import draw_scene, render
from fromnoise.evaluation.judges import second
from fromnoise.evaluation.judges.adherence import correct
from fromnoise.evaluation.judges.detect import FOREGROUND

MANY = 400


@functools.cache
def scenes() -> tuple[list[Prompt], list[list[Thing]], np.ndarray]:
    """Scenes as in training, and as many of pairs that no model was trained on."""
    rng = Random("second")
    found = [draw_scene(rng) for _ in range(MANY // 2)]
    for k in range(MANY // 2):
        prompt = draw_prompt(rng, ("colors", "position", "color_attr")[k % 3], held_out=True)
        found.append((prompt, draw_things(rng, prompt)))
    prompts, things = zip(*found, strict=True)
    return list(prompts), list(things), render(list(things), 32)


@pytest.fixture(scope="module")
def network() -> second.ShapesNetwork:
    return second.load()[0]


def right(network: second.ShapesNetwork, prompts: list[Prompt], pictures: np.ndarray) -> float:
    glances = network.look(pictures)
    return sum(glance.shows(prompt) for glance, prompt in zip(glances, prompts, strict=True)) / len(prompts)


def test_what_comes_with_fromnoise_is_small_and_says_where_it_is_from() -> None:
    _, known = second.load()
    assert second.ASSET.stat().st_size < 1.5 * 2**20
    assert known["command"].startswith("python -m benchmarks.shapes_judge") and len(known["sha256"]) == 64


def test_true_renders_pass_and_shuffled_captions_fail(network: second.ShapesNetwork) -> None:
    prompts, things, pictures = scenes()
    assert right(network, prompts, pictures) >= 0.985
    others = [next(p for p in prompts[k + 1 :] + prompts if not p.holds(found)) for k, found in enumerate(things)]
    assert right(network, others, pictures) <= 0.01


def test_places_colours_and_sizes_are_seen(network: second.ShapesNetwork) -> None:
    ring, star = Thing("ring", "green", 7, 8, 8), Thing("star", "pink", 5, 24, 20)
    (glance,) = network.look(render([[ring, star]], 32))
    assert glance.spoiled < 0.05
    assert {(t.shape, t.colour, t.size) for t in glance.things} == {
        ("ring", "green", "large"),
        ("star", "pink", "small"),
    }
    for seen in glance.things:
        true = ring if seen.shape == "ring" else star
        assert abs(seen.x - true.x) < 1 and abs(seen.y - true.y) < 1


def test_an_empty_picture_is_clean_and_shows_nothing(network: second.ShapesNetwork) -> None:
    (glance,) = network.look(np.full((1, 32, 32, 3), np.array(BACKGROUND, np.float32) / 255))
    assert glance.things == [] and glance.spoiled < 0.5


def test_larger_pictures_are_judged_alike(network: second.ShapesNetwork) -> None:
    prompts, things, _ = scenes()
    assert right(network, prompts[:100], render(things[:100], 64)) >= 0.95


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_picture_fails(name: str, network: second.ShapesNetwork) -> None:
    prompts, things, pictures = scenes()
    rng, chance = Random(name), np.random.default_rng(0)
    tried = [spoil(name, pictures[k], things[k], rng, chance) for k in range(100)]
    shown = [(prompts[k], picture) for k, picture in enumerate(tried) if picture is not None]
    assert len(shown) > 60
    assert right(network, [prompt for prompt, _ in shown], np.stack([picture for _, picture in shown])) <= 0.15


def ghostly(pictures: np.ndarray) -> np.ndarray:
    """A large ghost in the middle of each picture, nowhere further from the background than the checker sees."""
    far = np.linalg.norm(INK["blue"] - np.array(BACKGROUND, np.float32) / 255)
    ghost = mask(Thing("star", "blue", 13, 16, 16)) * np.float32(0.95 * FOREGROUND / far)
    blank = np.linalg.norm(pictures - np.array(BACKGROUND, np.float32) / 255, axis=-1, keepdims=True) < 0.01
    return pictures + ghost * blank * (INK["blue"] - pictures)


def test_a_picture_that_fools_the_checker_does_not_fool_the_network(network: second.ShapesNetwork) -> None:
    prompts, _, pictures = scenes()
    haunted = ghostly(pictures)
    assert sum(correct(p, picture) for p, picture in zip(prompts, haunted, strict=True)) >= 0.95 * MANY
    assert right(network, prompts, haunted) <= 0.05


def test_training_is_the_same_each_time() -> None:
    def weights() -> list[torch.Tensor]:
        return list(train(3, steps=1, batch=4, report=False).state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file at"):
        second.load(tmp_path / "none.safetensors")
    from fromnoise.core.files import save_tensors

    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="is no judge of shapes"):
        second.load(tmp_path / "other.safetensors")
