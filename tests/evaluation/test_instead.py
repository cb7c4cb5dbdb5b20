"""What was drawn instead: every wrong picture has a named reason, no right one has; tables count each object."""

from __future__ import annotations

from random import Random

import pytest

from fromnoise.data.scenes import Group, Prompt, Thing
from fromnoise.data.shapes import draw_scene
from fromnoise.evaluation.judges.adherence import shows
from fromnoise.evaluation.judges.detect import SPECK, Seen
from fromnoise.evaluation.judges.instead import REASONS, confusion, instead, reasons

RED, STAR = Thing("circle", "red", 5, 8, 16), Thing("star", "blue", 7, 24, 16)
PAIR = Prompt("a small red circle left of a large blue star", "position", (
    Group("circle", "red", "small"), Group("star", "blue", "large")), "left of")  # fmt: skip


def moved(thing: Thing, **changes: object) -> Thing:
    return Thing(**{**vars(thing), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("things", "unexplained", "expected"),
    [
        ([RED, STAR], 0.0, ()),
        ([STAR, RED], 0.0, ()),
        ([RED, STAR], SPECK + 1, ("not an object",)),
        ([RED], 0.0, ("too few",)),
        ([], 0.0, ("too few",)),
        ([RED, STAR, moved(RED, y=4)], 0.0, ("too many",)),
        ([moved(RED, shape="ring"), STAR], 0.0, ("wrong shape",)),
        ([moved(RED, colour="pink"), STAR], 0.0, ("wrong colour",)),
        ([moved(RED, colour="blue"), moved(STAR, colour="red")], 0.0, ("colours swapped",)),
        ([moved(RED, radius=7), STAR], 0.0, ("wrong size",)),
        ([moved(RED, x=24), moved(STAR, x=8)], 0.0, ("wrong place",)),
        ([moved(RED, shape="ring", colour="pink")], 9.0, ("not an object", "too few", "wrong shape", "wrong colour")),
    ],
)
def test_a_wrong_picture_has_its_reason(things: list[Thing], unexplained: float, expected: tuple[str, ...]) -> None:
    assert instead(PAIR, Seen(things, unexplained)).reasons == expected


def test_reasons_are_empty_exactly_where_the_picture_is_right() -> None:
    rng, wrong = Random(0), 0
    scenes = [draw_scene(rng) for _ in range(1500)]
    for k, (prompt, _) in enumerate(scenes):
        for other in (k, (k + 1) % len(scenes)):
            seen = Seen(scenes[other][1], rng.choice([0.0, 0.0, 2 * SPECK]))
            found = instead(prompt, seen)
            assert (not found.reasons) == shows(seen, prompt)
            assert set(found.reasons) <= set(REASONS)
            wrong += bool(found.reasons)
    assert wrong > 1500


def test_aslant_the_opposite_of_what_was_asked_is_named_first() -> None:
    above = Prompt("", "position", PAIR.groups, "above")
    found = instead(above, Seen([moved(RED, x=24, y=24), moved(STAR, x=8, y=8)], 0))
    assert ("place", "above", "below") in found.pairs  # it is right of it just as well


def test_every_object_is_counted_once_by_what_was_asked_and_seen() -> None:
    mirrored = instead(PAIR, Seen([moved(RED, x=24, colour="pink"), moved(STAR, x=8)], 0))
    lost = instead(PAIR, Seen([STAR], 0))
    crowd = instead(PAIR, Seen([RED, STAR, *(moved(RED, shape="ring", y=y) for y in (2, 9, 23))], 0))
    found = confusion([mirrored, lost, crowd])
    assert found == {
        "shape": {"circle": {"circle": 2, "missing": 1}, "star": {"star": 3}, "not asked": {"ring": 3}},
        "colour": {"red": {"red": 1, "pink": 1, "missing": 1}, "blue": {"blue": 3}},
        "size": {"small": {"small": 2, "missing": 1}, "large": {"large": 3}},
        "count": {"two": {"one": 1, "two": 1, "more": 1}},
        "place": {"left of": {"left of": 1, "right of": 1, "missing": 1}},
    }
    assert {k: n for k, n in reasons([mirrored, lost, crowd]).items() if n} == {
        "too few": 1, "too many": 1, "wrong colour": 1, "wrong place": 1}  # fmt: skip
