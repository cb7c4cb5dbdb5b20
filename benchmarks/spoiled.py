"""What the second judge of shapes learns from: renders of scenes, some slightly disturbed, and the same ones spoiled.

A slight disturbance is one that a person would not mind; each way to spoil a picture is one that a model draws when it
has not learned enough, or that only its judge would not mind. Legend: H and W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
from scipy import ndimage

from fromnoise.data.scenes import BACKGROUND, COLOURS, SHAPES, SIDE, Group, Prompt, Thing, draw_things
from fromnoise.data.shapes import coverage, render

GREY = np.array(BACKGROUND, np.float32) / 255
INK = {name: np.array(value, np.float32) / 255 for name, value in COLOURS.items()}
SHARES = (0.03, 0.34, 0.39, 0.12, 0.12)  # of scenes with none, one, two, three and four objects

Spoil = Callable[[np.ndarray, list[Thing], Random, np.random.Generator], np.ndarray]
"""(picture (H, W, 3) in [0, 1], its objects, two sources of chance) -> the picture, spoiled."""


def draw_scene(rng: Random) -> list[Thing]:
    """Any objects, of every pair of colour and shape, as a model draws them: nearly on the grid, nearly of a size."""
    count = rng.choices(range(len(SHARES)), SHARES)[0]
    kinds = [(rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(("small", "large"))) for _ in range(count)]
    if rng.random() < 0.3:
        kinds = kinds[:1] * count  # alike, as in counting
    things = draw_things(rng, Prompt("", "", tuple(Group(*kind) for kind in kinds))) if count else []
    loose = rng.random() * 0.5  # units
    return [
        replace(
            thing,
            radius=thing.radius + rng.uniform(-0.4, 0.4),
            x=thing.x + rng.gauss(0, loose),
            y=thing.y + rng.gauss(0, loose),
        )
        for thing in things
    ]


def disturbed(picture: np.ndarray, rng: Random, chance: np.random.Generator) -> np.ndarray:
    """Slight noise, a slight cast, a slight softness: nothing that a person would mind."""
    picture = picture + chance.normal(0, 0.012, 3).astype(np.float32) * (rng.random() < 0.5)
    if rng.random() < 0.3:
        picture = ndimage.gaussian_filter(picture, (rng.uniform(0, 0.4),) * 2 + (0,))
    return picture + rng.uniform(0, 0.035) * chance.standard_normal(picture.shape, np.float32) * (rng.random() < 0.7)


def mask(thing: Thing) -> np.ndarray:
    """Share of each pixel that an object covers, (H, W, 1)."""
    steps = np.arange(SIDE, dtype=np.float32) + 0.5
    radius = np.full((1, 1), thing.radius, np.float32)
    return coverage(thing.shape, steps[None] - thing.x, steps[:, None] - thing.y, radius)[..., None]


def blurred(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """Out of focus."""
    return ndimage.gaussian_filter(picture, (rng.uniform(0.9, 2.2),) * 2 + (0,))


def noisy(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """Noise that is left over everywhere."""
    return picture + rng.uniform(0.09, 0.3) * chance.standard_normal(picture.shape, np.float32)


def half_finished(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """A part of an object is missing, behind a straight edge."""
    thing, turn = rng.choice(things), rng.uniform(0, 2 * math.pi)
    steps = np.arange(SIDE, dtype=np.float32) + 0.5
    along = (steps[None] - thing.x) * math.cos(turn) + (steps[:, None] - thing.y) * math.sin(turn)
    gone = np.clip(along - rng.uniform(-0.4, 0.35) * thing.radius, 0, 1)[..., None] * _around(thing)
    return picture + gone * (GREY - picture)


def pale(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """An object that has hardly come out of the background."""
    covered = mask(rng.choice(things))
    return picture + covered * rng.uniform(0.3, 0.75) * (GREY - picture)


def smeared(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """What a weak VAE leaves: coarse pixels, or colours that run while edges stay."""
    if rng.random() < 0.5:
        few = np.asarray(ndimage.zoom(picture, (rng.choice((0.25, 0.375, 0.5)),) * 2 + (1,), order=1, mode="nearest"))
        back = (SIDE / few.shape[0], SIDE / few.shape[1], 1)
        return np.asarray(ndimage.zoom(few, back, order=1, mode="nearest"))
    light = picture.mean(-1, keepdims=True)
    return light + ndimage.gaussian_filter(picture - light, (rng.uniform(1.6, 3),) * 2 + (0,))


def haunted(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """Objects so faint that a threshold does not see them."""
    for _ in range(rng.randint(1, 3)):
        ghost = _anything(rng, rng.uniform(3, 7.5))
        picture = picture + mask(ghost) * rng.uniform(0.12, 0.35) * (INK[ghost.colour] - picture)
    return picture


def two_toned(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """A part of an object in another colour."""
    thing, turn = rng.choice(things), rng.uniform(0, 2 * math.pi)
    other = INK[rng.choice([name for name in COLOURS if name != thing.colour])]
    steps = np.arange(SIDE, dtype=np.float32) + 0.5
    along = (steps[None] - thing.x) * math.cos(turn) + (steps[:, None] - thing.y) * math.sin(turn)
    part = np.clip(along - rng.uniform(-0.4, 0.4) * thing.radius + 0.5, 0, 1)[..., None] * mask(thing)
    return picture + part * rng.uniform(0.6, 1) * (other - picture)


def morphed(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """An object between two shapes."""
    thing = rng.choice(things)
    other = replace(thing, shape=rng.choice([shape for shape in SHAPES if shape != thing.shape]))
    share, bare = rng.uniform(0.35, 0.65), picture + mask(thing) * (GREY - picture)
    if rng.random() < 0.5:  # one half of each
        steps = np.arange(SIDE, dtype=np.float32) + 0.5
        across = (steps[None, :, None] < thing.x) if rng.random() < 0.5 else (steps[:, None, None] < thing.y)
        covered = np.where(across, mask(thing), mask(other))
    else:
        covered = share * mask(thing) + (1 - share) * mask(other)
    return bare + covered * (INK[thing.colour] - bare)


def merged(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """Two objects that run into each other."""
    thing, turn = rng.choice(things), rng.uniform(0, 2 * math.pi)
    away = thing.radius * rng.uniform(0.5, 1.5)
    near = replace(_anything(rng, thing.radius), x=thing.x + away * math.cos(turn), y=thing.y + away * math.sin(turn))
    return picture + mask(near) * (INK[near.colour] - picture)


def specked(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """Stray dots and strokes."""
    for _ in range(rng.randint(1, 4)):
        dot = replace(_anything(rng, rng.uniform(0.9, 2.2)), shape=rng.choice(("circle", "square", "cross")))
        picture = picture + mask(dot) * rng.uniform(0.5, 1) * (INK[dot.colour] - picture)
    return picture


def textured(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """An object whose inside is no plain colour: grain, a chequer, or stripes."""
    covered, grain = mask(rng.choice(things)), chance.standard_normal((SIDE, SIDE, 1), np.float32)
    rows, columns = np.indices((SIDE, SIDE)) // rng.choice((1, 2))
    chequer = ((rows + columns * rng.choice((0, 1))) % 2 * 2.0 - 1)[..., None].astype(np.float32)
    return picture + covered * rng.uniform(0.1, 0.25) * (grain if rng.random() < 0.5 else chequer)


def holed(picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator) -> np.ndarray:
    """A hole where there is none."""
    thing, turn = rng.choice(things), rng.uniform(0, 2 * math.pi)
    away, radius = thing.radius * rng.uniform(0.1, 0.7), rng.uniform(0.22, 0.42) * thing.radius
    hole = Thing("circle", thing.colour, radius, thing.x + away * math.cos(turn), thing.y + away * math.sin(turn))
    return picture + mask(hole) * (GREY - picture)


SPOILS: dict[str, Spoil] = {
    "blurred": blurred,
    "noisy": noisy,
    "half-finished": half_finished,
    "pale": pale,
    "smeared": smeared,
    "haunted": haunted,
    "two-toned": two_toned,
    "morphed": morphed,
    "merged": merged,
    "specked": specked,
    "textured": textured,
    "holed": holed,
}
"""Ways to spoil a picture that holds at least one object."""


def spoil(
    name: str, picture: np.ndarray, things: list[Thing], rng: Random, chance: np.random.Generator
) -> np.ndarray | None:
    """The picture spoiled that way, in [0, 1]; None where it hardly shows, as where a hole lies in a ring's own."""
    changed = np.clip(SPOILS[name](picture, things, rng, chance), 0, 1)
    apart = np.sqrt(((changed - picture) ** 2).sum(-1))  # (H, W)
    return changed.astype(np.float32) if (apart * (apart > 0.06)).sum() > 1.6 else None


def examples(count: int, seed: str) -> tuple[np.ndarray, list[list[Thing]], list[str]]:
    """Pictures (N, H, W, 3) in [0, 1], their objects, and how each was spoiled: every other one, else ""."""
    rng = Random(seed)
    chance = np.random.default_rng(rng.getrandbits(64))
    scenes = [draw_scene(rng) for _ in range(count)]
    pictures, names = render(scenes, SIDE), [""] * count
    for k, things in enumerate(scenes):
        name = rng.choice(list(SPOILS)) if k % 2 and things else ""
        changed = spoil(name, pictures[k], things, rng, chance) if name else None
        names[k] = name if changed is not None else ""
        pictures[k] = np.clip(disturbed(pictures[k] if changed is None else changed, rng, chance), 0, 1)
    return pictures, scenes, names


def _anything(rng: Random, radius: float) -> Thing:
    return Thing(rng.choice(SHAPES), rng.choice(list(COLOURS)), radius, rng.uniform(2, 30), rng.uniform(2, 30))


def _around(thing: Thing) -> np.ndarray:
    """Where a picture may show this object and no other, (H, W, 1)."""
    steps = np.arange(SIDE, dtype=np.float32) + 0.5
    near = np.maximum(np.abs(steps[None] - thing.x), np.abs(steps[:, None] - thing.y)) < thing.radius + 1
    return near[..., None]
