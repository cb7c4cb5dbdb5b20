"""What was drawn instead of what was asked for: each object asked for beside the one that stands for it in the picture.

Objects are paired so that the fewest of their properties differ (an assignment problem, Kuhn 1955), and every pair
counts once in a table of asked against seen. A picture that is wrong has one reason or several, each of them named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fromnoise.data.scenes import COLOURS, DIRECTIONS, NUMBERS, RADII, SHAPES, Group, Prompt, Thing, stands
from fromnoise.evaluation.judges.detect import SPECK, Seen

REASONS: tuple[str, ...] = (
    "not an object",
    "too few",
    "too many",
    "wrong shape",
    "wrong colour",
    "colours swapped",
    "wrong size",
    "wrong place",
)
"""Why a picture is wrong. Colours swapped: both are there, each on the other object; then neither is a wrong colour."""

MISSING, EXTRA = "missing", "not asked"
PLACES = (*DIRECTIONS, "neither", MISSING)
"""Where the first object is seen from the second; neither: too near or too far aslant for any word."""
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
VALUES: dict[str, tuple[str, ...]] = {
    "shape": (*SHAPES, MISSING, EXTRA),
    "colour": (*COLOURS, MISSING),
    "size": (*RADII, MISSING),
    "count": (*NUMBERS, "more"),
    "place": PLACES,
}
"""What may stand in the rows and columns of each table, in their order."""

Confusion = dict[str, dict[str, dict[str, int]]]
"""Of each property: asked, seen, and how often."""

_WEIGHTS = {"shape": 4, "colour": 2, "size": 1}  # of a mistake: objects are told by their shape first


class Instead(NamedTuple):
    """What a picture shows beside what was asked for."""

    reasons: tuple[str, ...]  # why it is wrong, in the order of REASONS; none where it is right
    pairs: tuple[tuple[str, str, str], ...]  # property, asked, seen


def instead(prompt: Prompt, seen: Seen) -> Instead:
    """Compare a prompt with what its picture shows; reasons are empty exactly where the picture is right."""
    slots = [group for group in prompt.groups for _ in range(group.count)]
    matched = pair(slots, seen.things)
    pairs = list(_count(len(slots), len(seen.things)))
    reasons = {"not an object"} if seen.unexplained > SPECK else set()
    if len(seen.things) != len(slots):
        reasons.add("too few" if len(seen.things) < len(slots) else "too many")
    for slot, thing in zip(slots, matched, strict=True):
        for name, asked, found in _properties(slot, thing):
            pairs.append((name, asked, found))
            if found not in (asked, MISSING):
                reasons.add(f"wrong {name}")
    pairs += [("shape", EXTRA, thing.shape) for thing in seen.things if thing not in matched]
    if _swapped(slots, matched):
        reasons = reasons - {"wrong colour"} | {"colours swapped"}
    if prompt.relation:
        place = _place(matched[0], prompt.relation, matched[1])
        pairs.append(("place", prompt.relation, place))
        if place not in (prompt.relation, MISSING):
            reasons.add("wrong place")
    return Instead(tuple(reason for reason in REASONS if reason in reasons), tuple(pairs))


def pair(slots: Sequence[Group], things: Sequence[Thing]) -> list[Thing | None]:
    """For each object asked for the one seen that differs least from it; None for those that are missing."""
    from scipy.optimize import linear_sum_assignment

    matched: list[Thing | None] = [None] * len(slots)
    if things:
        costs = [
            [
                sum(_WEIGHTS[name] for name, asked, found in _properties(slot, thing) if asked != found)
                for thing in things
            ]
            for slot in slots
        ]
        for row, column in zip(*linear_sum_assignment(np.array(costs)), strict=True):
            matched[row] = things[column]
    return matched


def confusion(found: Iterable[Instead]) -> Confusion:
    """How often what was seen in place of what; properties and values that never came up are left out."""
    counts: Confusion = {name: {} for name in VALUES}
    for one in found:
        for name, asked, seen in one.pairs:
            row = counts[name].setdefault(asked, {})
            row[seen] = row.get(seen, 0) + 1
    return {
        name: {asked: {seen: rows[asked][seen] for seen in VALUES[name] if seen in rows[asked]}
               for asked in VALUES[name] if asked in rows}
        for name, rows in counts.items() if rows
    }  # fmt: skip


def reasons(found: Iterable[Instead]) -> dict[str, int]:
    """Pictures that are wrong for each reason; one may be so for several."""
    counts = dict.fromkeys(REASONS, 0)
    for one in found:
        for reason in one.reasons:
            counts[reason] += 1
    return counts


def _properties(slot: Group, thing: Thing | None) -> list[tuple[str, str, str]]:
    """Property, asked, seen: of those that the prompt names."""
    named = (("shape", slot.shape), ("colour", slot.colour), ("size", slot.size))
    return [(name, asked, getattr(thing, name) if thing else MISSING) for name, asked in named if asked]


def _count(asked: int, seen: int) -> list[tuple[str, str, str]]:
    return [("count", NUMBERS[asked], NUMBERS[seen] if seen < len(NUMBERS) else "more")]


def _swapped(slots: Sequence[Group], matched: Sequence[Thing | None]) -> bool:
    """Whether two objects of unlike colours have each other's."""
    if len(slots) != 2 or None in matched:
        return False
    asked, seen = [slot.colour for slot in slots], [thing.colour for thing in matched if thing]
    return None not in asked and asked[0] != asked[1] and asked == seen[::-1]


def _place(a: Thing | None, relation: str, b: Thing | None) -> str:
    """Where the first object stands from the second: as asked, if that may be said at all."""
    if a is None or b is None:
        return MISSING
    tried = (relation, OPPOSITE[relation], *DIRECTIONS)
    return next((word for word in tried if stands(a, word, b)), "neither")
