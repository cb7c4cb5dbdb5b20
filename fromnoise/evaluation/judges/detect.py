"""From pixels alone to the objects of a shapes picture: connected foreground, matched against drawn templates.

Legend: H and W height and width of the picture, w window.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from fromnoise.data.scenes import BACKGROUND, COLOURS, RADII, SHAPES, SIDE, Thing
from fromnoise.data.shapes import coverage

FOREGROUND = 0.2  # distance in RGB (0 to 1 a channel) at which a pixel is no longer background
SPECK = 3.0  # foreground area, in units squared, that noise may leave unexplained
COLOUR_TOLERANCE = 0.2  # largest distance in RGB from a named colour; the nearest two are .34 apart
OVERLAP = 0.81  # least overlap of an object with its template: sum of minima over sum of maxima
PHASES = 4  # template positions per pixel and axis
RADIUS_STEP = 0.2  # between templates, in units

_BACKGROUND = np.array(BACKGROUND, np.float32) / 255
_PALETTE = np.array(list(COLOURS.values()), np.float32) / 255  # (8, 3)
_NAMES = tuple(COLOURS)


class Seen(NamedTuple):
    """What a picture shows: the objects recognised, and the foreground that is no object."""

    things: list[Thing]
    unexplained: float  # area, in units squared


class Templates(NamedTuple):
    """Every shape at every radius and sub-pixel phase."""

    masks: np.ndarray  # (6, R, PHASES, PHASES, w, w) coverage; phases row first
    sums: np.ndarray  # (6, R, PHASES, PHASES) of each mask
    radii: np.ndarray  # (R,) in pixels
    areas: np.ndarray  # (6,) of the shape of radius 1
    centroids: np.ndarray  # (6,) rows by which the centre of mass lies below the centre, for radius 1


@functools.lru_cache(maxsize=4)
def templates(size: int) -> Templates:
    """The templates where 32 units are `size` pixels; centres lie in the pixel below and right of the middle."""
    scale = size / SIDE
    low, high = RADII["small"] - 0.8, RADII["large"] + 0.8
    radii = (np.arange(low, high, RADIUS_STEP) * scale).astype(np.float32)  # (R,)
    half = int(np.ceil(1.15 * radii[-1])) + 2
    steps = np.arange(-half, half, dtype=np.float32) + 0.5  # (w,) pixel centres
    phase = ((np.arange(PHASES) + 0.5) / PHASES).astype(np.float32)  # (PHASES,)
    x = (steps - phase[:, None])[None, None, :, None, :]  # (1, 1, PHASES, 1, w)
    y = (steps - phase[:, None])[None, :, None, :, None]  # (1, PHASES, 1, w, 1)
    masks = np.stack([coverage(shape, x, y, radii[:, None, None, None, None]) for shape in SHAPES])
    fine = np.linspace(-1.25, 1.25, 501, dtype=np.float32)
    drawn = [
        coverage(shape, fine[None] * 100, fine[:, None] * 100, np.full((1, 1), 100, np.float32)) for shape in SHAPES
    ]
    areas = np.array([mask.mean() * 2.5**2 for mask in drawn])
    centroids = np.array([(mask.sum(1) * fine).sum() / mask.sum() for mask in drawn])
    return Templates(masks, masks.sum((-2, -1)), radii, areas, centroids)


def detect(picture: np.ndarray, size: int | None = None) -> Seen:
    """The objects in a picture (H, W, 3) of float values in [0, 1].

    size: pixels of which a unit is 1/32, as in `render`; None for a square, of which it is the side.

    A patch of foreground is an object if its colour is a named one and its coverage overlaps a drawn template by at
    least `OVERLAP`; the template gives shape, radius and centre. What else differs from the background is unexplained.
    """
    side = picture.shape[0] if size is None else size
    scale = side / SIDE
    contrast = picture - _BACKGROUND  # (H, W, 3)
    foreground = np.sqrt((contrast**2).sum(-1)) > FOREGROUND  # (H, W)
    labels = np.empty(foreground.shape, np.int32)  # (H, W)
    ndimage.label(foreground, structure=np.ones((3, 3)), output=labels)
    things, unexplained = [], 0.0
    for k in range(1, labels.max() + 1):
        patch = labels == k
        area = patch.sum() / scale**2
        thing = recognise(contrast, patch, labels, side) if area > SPECK else None
        if thing:
            things.append(thing)
        else:
            unexplained += area
    return Seen(things, float(unexplained))


def recognise(contrast: np.ndarray, patch: np.ndarray, labels: np.ndarray, size: int) -> Thing | None:
    """The object that a patch of foreground (H, W) is, or None."""
    pixels = contrast[patch]  # (n, 3)
    strength = np.sqrt((pixels**2).sum(-1))  # (n,)
    core = np.median(pixels[strength >= 0.75 * np.quantile(strength, 0.9)], axis=0)  # (3,)
    distances = np.sqrt(((_PALETTE - _BACKGROUND - core) ** 2).sum(-1))  # (8,)
    colour = int(distances.argmin())
    if distances[colour] > COLOUR_TOLERANCE:
        return None
    ink = _PALETTE[colour] - _BACKGROUND  # (3,)
    around = ndimage.binary_dilation(patch, structure=np.ones((3, 3))) & ((labels == 0) | patch)  # its soft edge too
    alpha = np.clip(contrast @ ink / (ink @ ink), 0, 1) * around  # (H, W) coverage
    overlap, shape, radius, x, y = best_template(alpha, templates(size))
    if overlap < OVERLAP:
        return None
    scale = size / SIDE
    return Thing(SHAPES[shape], _NAMES[colour], radius / scale, x / scale, y / scale)


def best_template(alpha: np.ndarray, known: Templates) -> tuple[float, int, float, float, float]:
    """Overlap, shape, radius, x and y (pixels) of the template nearest to a coverage (H, W).

    Area and centre of mass give each shape's radius and place; the neighbours of that guess are tried one step around,
    and the best shape's best once more.
    """
    half = known.masks.shape[-1] // 2
    padded = np.pad(alpha, half)  # centres near the edge keep a whole window
    windows = sliding_window_view(padded, (2 * half, 2 * half))  # (H + 1, W + 1, w, w)
    total = alpha.sum()
    rows, columns = np.arange(alpha.shape[0]) + 0.5, np.arange(alpha.shape[1]) + 0.5
    y, x = alpha.sum(1) @ rows / total, alpha.sum(0) @ columns / total
    radii = np.sqrt(total / known.areas)  # (6,)
    ys, xs = y - known.centroids * radii, np.full_like(radii, x)  # (6,) each
    best = _try_around(windows, known, np.arange(len(SHAPES)), radii, ys, xs)
    _, shape, radius, x, y = best
    return max(best, _try_around(windows, known, *(np.array([each]) for each in (shape, radius, y, x))))


def _try_around(
    windows: np.ndarray, known: Templates, shapes: np.ndarray, radii: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[float, int, float, float, float]:
    """The best of the 27 templates of each of S shapes around a radius and place of its own, (S,) each."""
    around = np.arange(-1, 2)
    nearest = np.abs(known.radii - radii[:, None]).argmin(1).clip(1, len(known.radii) - 2)  # (S,)
    last = PHASES * (np.array(windows.shape[:2]) - 1) - 1  # the centre is inside the picture
    guess = np.floor(np.stack((y, x), 1) * PHASES).astype(int)  # (S, 2)
    rows, columns = (guess + around[:, None, None]).clip(0, last).T  # (2, S, 3)
    (top, p), (left, q) = divmod(rows[:, :, None], PHASES), divmod(columns[:, None], PHASES)  # (S, 3, 1), (S, 1, 3)
    r = (nearest[:, None] + around)[:, None, None]  # (S, 1, 1, 3)
    places = shapes[:, None, None, None], r, p[..., None], q[..., None]  # (S, 3, 3, 3) together
    chosen = np.ravel_multi_index(places, known.sums.shape)  # (S, 3, 3, 3)
    seen = windows[top, left].reshape(*top.shape[:2], 3, 1, -1)  # (S, 3, 3, 1, w w)
    # Taken by one number each, and in place: by four, and anew, it would take twice as long.
    common = known.masks.reshape(-1, seen.shape[-1]).take(chosen, 0)  # (S, 3, 3, 3, w w)
    common = np.minimum(common, seen, out=common).sum(-1)  # (S, 3, 3, 3)
    overlaps = common / (known.sums.ravel()[chosen] + seen.sum(-1) - common)  # (S, 3, 3, 3), as min + max is both
    s, i, j, k = (int(n) for n in np.unravel_index(overlaps.argmax(), overlaps.shape))
    row, column = rows[s, i], columns[s, j]
    radius = known.radii[r[s, 0, 0, k]]
    return float(overlaps[s, i, j, k]), int(shapes[s]), float(radius), (column + 0.5) / PHASES, (row + 0.5) / PHASES
