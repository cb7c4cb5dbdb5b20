"""What a scene of shapes holds, how it is said, and when a picture's objects make a prompt true.

Lengths are in units of 1/32 of the picture's side, so that one description serves every picture size; a larger canvas
has more of the same units, for objects of the same size. x grows to the right and y downwards, both from the top left
corner. Objects stand on multiples of 4: few ways for an edge to cross pixels and patches is what lets a small model
draw crisp shapes after minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, permutations
from random import Random

Canvas = tuple[int, int]
"""Height and width, each a multiple of 2 `GRID` of at least `SIDE`."""

SIDE = 32
SQUARE: Canvas = (SIDE, SIDE)
"""The canvas trained on."""
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (220, 40, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 220, 50),
    "green": (40, 160, 70),
    "blue": (40, 90, 220),
    "purple": (135, 50, 175),
    "pink": (250, 135, 190),
    "black": (30, 30, 35),
}
BACKGROUND = (245, 245, 240)
RADII = {"small": 5, "large": 7}
MIDDLE_RADIUS = 6.0  # between small and large
GAP = 2  # least distance between the bounding boxes of two objects
MARGIN = 1  # least distance from a bounding box to the picture's edge
GRID = 4  # objects stand on multiples of this
NUMBERS = ("no", "one", "two", "three", "four")
HELD_OUT = frozenset(
    [
        ("purple", "circle"),
        ("green", "square"),
        ("orange", "triangle"),
        ("blue", "star"),
        ("pink", "cross"),
        ("red", "ring"),
    ]
)
"""Colour and shape pairs that never appear in training, neither in captions nor in pictures."""

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""Named as GenEval's (Ghosh et al. 2023)."""

RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True)
class Thing:
    """One object: its bounding box is centred on (x, y) and about 2 `radius` wide."""

    shape: str
    colour: str
    radius: float
    x: float
    y: float

    @property
    def size(self) -> str:
        return "small" if self.radius < MIDDLE_RADIUS else "large"


@dataclass(frozen=True)
class Group:
    """`count` objects alike, as a prompt names them; None where it says nothing."""

    shape: str
    colour: str | None = None
    size: str | None = None
    count: int = 1

    def admits(self, thing: Thing) -> bool:
        return thing.shape == self.shape and self.colour in (None, thing.colour) and self.size in (None, thing.size)

    def words(self) -> str:
        """ "a small red circle", "three stars", "an orange ring"."""
        noun = " ".join(word for word in (self.size, self.colour, self.shape) if word)
        if self.count > 1:
            return f"{NUMBERS[self.count]} {noun}{'es' if noun.endswith('s') else 's'}"
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True)
class Prompt:
    """A caption and what it claims: one or two groups, and how the first stands to the second."""

    text: str
    task: str
    groups: tuple[Group, ...]
    relation: str | None = None

    def holds(self, things: list[Thing]) -> bool:
        """True if `things` are exactly what is asked for: no object missing, none too many, the relation right."""
        slots = [group for group in self.groups for _ in range(group.count)]
        if len(slots) != len(things):
            return False
        return any(
            all(slot.admits(thing) for slot, thing in zip(slots, order, strict=True))
            and (self.relation is None or stands(order[0], self.relation, order[1]))
            for order in permutations(things)
        )


def offset(a: Thing, b: Thing) -> tuple[float, float]:
    """The unit vector from b to a, each axis first shrunk by a tenth of both widths (GenEval's rule)."""
    slack = 0.1 * 2 * (a.radius + b.radius)
    dx, dy = (math.copysign(max(abs(d) - slack, 0.0), d) for d in (a.x - b.x, a.y - b.y))
    length = math.hypot(dx, dy)
    return (dx / length, dy / length) if length else (0.0, 0.0)


def stands(a: Thing, relation: str, b: Thing) -> bool:
    """True if a is `relation` b: more than half of their shrunk offset points that way."""
    dx, dy = offset(a, b)
    ux, uy = DIRECTIONS[relation]
    return dx * ux + dy * uy > 0.5


def draw_groups(rng: Random, task: str, coloured: float) -> tuple[list[Group], str | None]:
    """What a prompt of `task` claims: its groups, and the relation if it names one. See `draw_prompt`."""
    shapes, colours = rng.sample(SHAPES, 2), rng.sample(list(COLOURS), 2)
    sizes = [rng.choice(("small", "large")) for _ in range(2)]
    sized = rng.random() < 0.25
    with_colour = {"colors": True, "color_attr": True, "single_object": False, "two_object": False}.get(
        task, rng.random() < coloured
    )
    count = rng.randint(2, 4) if task == "counting" else 1
    groups = [
        Group(shape, colour if with_colour else None, size if sized else None, count)
        for shape, colour, size in zip(shapes, colours, sizes, strict=True)
    ]
    if task in ("single_object", "colors", "counting"):
        return groups[:1], None
    return groups, rng.choice(list(RELATIONS)) if task == "position" else None


def draw_text(rng: Random, groups: list[Group], relation: str | None) -> str:
    """One of several ways to say it."""
    words = [group.words() for group in groups]
    if relation:
        said = f" {rng.choice(RELATIONS[relation])} ".join(words)
    else:
        said = rng.choice((" and ", " with ")).join(words)
    starts = ("", "a picture of ", "there is " if groups[0].count == 1 else "there are ")
    return rng.choices(starts, (0.8, 0.1, 0.1))[0] + said


def draw_prompt(rng: Random, task: str, held_out: bool = False, coloured: float = 0.5) -> Prompt:
    """A prompt of `task`; with `held_out` it names at least one held-out pair, without it none.

    coloured: share of the counting and position prompts that name colours; of other tasks all do, or none.
    """
    while True:
        groups, relation = draw_groups(rng, task, coloured)
        if any((group.colour, group.shape) in HELD_OUT for group in groups) == held_out:
            return Prompt(draw_text(rng, groups, relation), task, tuple(groups), relation)


def draw_things(rng: Random, prompt: Prompt, canvas: Canvas = SQUARE) -> list[Thing]:
    """Objects that make the prompt true; no two touch, and no held-out pair appears that the prompt does not name.

    On another canvas they are as many and as large, and stand anywhere on it.
    """
    kinds: list[tuple[str, str, int]] = []
    for group in prompt.groups:
        allowed = [colour for colour in COLOURS if (colour, group.shape) not in HELD_OUT]
        colour = group.colour or rng.choice(allowed)
        radius = RADII[group.size or rng.choice(("small", "large"))]
        kinds += [(group.shape, colour, radius)] * group.count
    crowded = len(kinds) > 2  # four large ones seldom fit, but where each stands in a quarter of its own
    height, width = (side // 2 if crowded else side for side in canvas)
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    radii = [radius for _, _, radius in kinds]
    spans = [(_within(radius, width), _within(radius, height)) for radius in radii]
    while True:
        starts = rng.sample(corners, len(kinds)) if crowded else corners[:1] * len(kinds)
        centres = [(x + rng.choice(xs), y + rng.choice(ys)) for (x, y), (xs, ys) in zip(starts, spans, strict=True)]
        if _apart(centres, radii):
            things = [Thing(*kind, x, y) for kind, (x, y) in zip(kinds, centres, strict=True)]
            if prompt.relation is None or _clearly(things[0], prompt.relation, things[1]):
                return things


def _within(radius: int, side: int) -> range:
    """Coordinates for a centre, so that the object stays in [0, side]."""
    first = GRID * math.ceil((radius + MARGIN) / GRID)
    return range(first, side - radius - MARGIN + 1, GRID)


def _apart(centres: list[tuple[int, int]], radii: list[int]) -> bool:
    """Whether no two objects' bounding boxes come nearer than `GAP`."""
    for ((ax, ay), a), ((bx, by), b) in combinations(zip(centres, radii, strict=True), 2):
        if max(abs(ax - bx), abs(ay - by)) < a + b + GAP:
            return False
    return True


def _clearly(a: Thing, relation: str, b: Thing) -> bool:
    """The relation holds with room to spare, so that a caption is never a matter of opinion."""
    dx, dy = offset(a, b)
    ux, uy = DIRECTIONS[relation]
    return dx * ux + dy * uy > 0.8
