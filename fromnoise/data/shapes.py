"""Procedural captioned scenes of shapes: endless, seeded, drawn from signed distances.

Legend: B batch, N objects, H and W height and width of a picture.
"""

from __future__ import annotations

import math
from functools import cache
from random import Random

import numpy as np
import torch

from fromnoise.core.types import Batch, part_of
from fromnoise.data.config import ShapesConfig
from fromnoise.data.scenes import (
    BACKGROUND,
    COLOURS,
    RADII,
    SHAPES,
    SIDE,
    SQUARE,
    TASKS,
    Canvas,
    Prompt,
    Thing,
    draw_prompt,
    draw_things,
)

# What training shows differs from what is judged. Which words belong to which of two objects is learned soonest from
# pairs whose colours and places are both said: most scenes are such pairs.
_SHARES = (0.06, 0.18, 0.12, 0.06, 0.36, 0.22)  # of each task, in the order of TASKS
_COLOURED = 0.7  # of the counting and position captions


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    turns = [math.pi * k / points for k in range(2 * points)]
    radii = [1.0 if k % 2 == 0 else inner for k in range(2 * points)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, turns, strict=True)]


def _cross(arm: float) -> list[tuple[float, float]]:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    return [point for k in range(4) for point in _turned(quarter, k)]


def _turned(points: list[tuple[float, float]], quarters: int) -> list[tuple[float, float]]:
    for _ in range(quarters):
        points = [(-y, x) for x, y in points]
    return points


_POLYGONS = {  # corners for radius 1
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": [(1.05 * x, 1.05 * y + 0.05) for x, y in _star(5, 0.45)],
    "cross": _cross(0.36),
}
_HOLE = 0.55  # inner radius of a ring


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Signed distance to a simple polygon, negative inside (crossing number over the edges)."""
    nearest = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        px, py = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
        if ey != 0:
            inside ^= ((ay > y) != (by > y)) & (px < py * (ex / ey))
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Share of each pixel that a shape covers. `x`, `y` are pixel centres from the shape's centre and `radius` its
    radius, all in pixels, broadcast against each other."""
    ux, uy = x / radius, y / radius
    if shape in _POLYGONS:
        ux, uy = np.broadcast_arrays(ux, uy)
        distance = _polygon_distance(ux, uy, _POLYGONS[shape])
    else:
        distance = np.hypot(ux, uy) - 1
        if shape == "ring":
            distance = np.maximum(distance, _HOLE - 1 - distance)
    return np.clip(0.5 - distance * radius, 0, 1).astype(np.float32)


def pixels(canvas: Canvas, size: int) -> tuple[int, int]:
    """Height and width in pixels of a canvas of which `SIDE` units are `size` pixels."""
    return canvas[0] * size // SIDE, canvas[1] * size // SIDE


def render(scenes: list[list[Thing]], size: int, canvas: Canvas = SQUARE) -> np.ndarray:
    """Pictures (B, H, W, 3) float32 in [0, 1] of the scenes; `SIDE` units are `size` pixels."""
    scale = size / SIDE
    height, width = pixels(canvas, size)
    pictures = np.empty((len(scenes), height, width, 3), np.float32)
    pictures[:] = np.array(BACKGROUND, np.float32) / 255
    window = 2 * math.ceil(RADII["large"] * scale + 1)  # pixels around a centre that the largest shape can cover
    for shape in SHAPES:
        found = [(b, thing) for b, things in enumerate(scenes) for thing in things if thing.shape == shape]
        if not found:
            continue
        centre = np.array([(t.x * scale, t.y * scale) for _, t in found], np.float32)  # (N, 2)
        radius = np.array([t.radius * scale for _, t in found], np.float32)[:, None, None]  # (N, 1, 1)
        first = np.floor(centre - window / 2).astype(int)  # (N, 2) column and row of each window
        steps = np.arange(window, dtype=np.float32) + 0.5
        x = (steps + first[:, :1] - centre[:, :1])[:, None, :].astype(np.float32)  # (N, 1, window)
        y = (steps + first[:, 1:] - centre[:, 1:])[:, :, None].astype(np.float32)  # (N, window, 1)
        covered = coverage(shape, x, y, radius)  # (N, window, window)
        for (b, thing), (column, row), alpha in zip(found, first, covered, strict=True):
            top, left = max(row, 0), max(column, 0)
            alpha = alpha[top - row : height - row, left - column : width - column, None]
            target = pictures[b, top : row + window, left : column + window]
            target += alpha * (np.array(COLOURS[thing.colour], np.float32) / 255 - target)
    return pictures


def draw_scene(rng: Random, canvas: Canvas = SQUARE) -> tuple[Prompt, list[Thing]]:
    """A training scene and a caption true of it."""
    prompt = draw_prompt(rng, rng.choices(TASKS, _SHARES)[0], coloured=_COLOURED)
    return prompt, draw_things(rng, prompt, canvas)


@cache
def _captions(count: int) -> tuple[str, ...]:
    """The same for every training: a second or two of work."""
    rng = Random("captions")
    return tuple(draw_scene(rng)[0].text for _ in range(count))


class ShapesData:
    """The data set: batch k is a pure function of (seed, k), so it has no end and no state.

    canvas: another than the square trained on, to see what a model makes of it; objects keep their size in pixels.
    """

    def __init__(self, config: ShapesConfig, seed: int, canvas: Canvas = SQUARE):
        self.config, self.seed, self.canvas = config, seed, canvas
        self.image_shape = (3, *pixels(canvas, config.size))
        self.sizes = [self.image_shape[1:]]
        self.classes = 1
        self.problems: list[str] = []
        self.counts = None

    def train(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The pictures and captions of optimizer step `step`: `size` in all, of which process `rank` of `ranks` gets
        its part, in order."""
        return self._batch(Random(f"train/{self.seed}/{step}"), size, part_of(size, rank, ranks))

    def validation(self, size: int) -> Batch:
        """Fixed pictures from a stream of their own, the same for every seed."""
        return self._batch(Random("validation"), size, slice(size))

    def captions(self, count: int) -> list[str]:
        """Captions to learn a vocabulary from."""
        return list(_captions(count))

    def _batch(self, rng: Random, size: int, part: slice) -> Batch:
        drawn = [draw_scene(rng, self.canvas) for _ in range(size)][part]  # of chance each takes what it takes
        prompts, scenes = zip(*drawn, strict=True)
        pictures = render(list(scenes), self.config.size, self.canvas)  # (B, H, W, 3)
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous() * 2 - 1  # (B, 3, H, W)
        labels = torch.tensor([SHAPES.index(things[0].shape) for things in scenes])  # (B,) the first object's shape
        return Batch(images, [prompt.text for prompt in prompts], labels)
