"""What the runs of a recipe say together, and how far recipes are apart, pair by pair of one seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from statistics import NormalDist
from typing import Any

from fromnoise.evaluation.intervals import estimate, share_difference, wilson

JUDGED = ("accuracy", "frechet", "frechet_floor", "diversity", "images_per_second")

Tree = dict[str, Any]

NUMBERS: dict[str, Callable[[Tree], float | None]] = {
    "accuracy": lambda run: run["quality"]["accuracy"],
    "frechet": lambda run: run["quality"]["frechet"],
    "diversity": lambda run: run["quality"]["diversity"],
    "velocity_error": lambda run: run["denoising"]["velocity"],
    "validation": lambda run: run["validation"]["ema"][-1],
}
"""What two recipes may be compared by, and where it stands in what was measured of a run."""


def summary(runs: Sequence[Tree]) -> Tree:
    """Estimates over the seeds of one recipe: of its quality, of its errors, at each number of steps, at each scale."""
    by_steps = [together(points, "steps") for points in zip(*(run["by_steps"] for run in runs), strict=True)]
    by_guidance = [together(points, "guidance") for points in zip(*(run["by_guidance"] for run in runs), strict=True)]
    by_time = zip(*(run["denoising"]["by_time"] for run in runs), strict=True)
    return {
        **judged([run["quality"] for run in runs]),
        "velocity_error": estimate([run["denoising"]["velocity"] for run in runs], within=(0.0, inf)),
        "by_time": [estimate(one, within=(0.0, inf)) for one in by_time],
        "validation": estimate([run["validation"]["ema"][-1] for run in runs]),
        "training_seconds": estimate([run["seconds"] for run in runs], within=(0.0, inf)),
        "by_steps": by_steps,
        "by_guidance": by_guidance,
    }


def together(points: Sequence[Tree], key: str) -> Tree:
    """Estimates at one point of a sweep."""
    return {key: points[0][key], **judged(points)}


def judged(found: Sequence[Tree]) -> Tree:
    """An estimate of each number of a judge; None for what it cannot tell."""
    told: Tree = {}
    for key in JUDGED:
        values = [one[key] for one in found if one[key] is not None]
        share = key == "accuracy"
        interval = pooled(found) if share and values else None
        told[key] = estimate(values, interval, (0.0, 1.0 if share else inf)) if len(values) == len(found) else None
    return told


def pooled(found: Sequence[Tree]) -> tuple[float, float]:
    """The 95 % interval (Wilson) of the share that is right among the pictures of all seeds together."""
    return wilson(*counted(found))


def counted(found: Sequence[Tree]) -> tuple[int, int]:
    """How many pictures of all seeds together are right, and how many there are."""
    return sum(round(one["accuracy"] * one["samples"]) for one in found), sum(one["samples"] for one in found)


def differences(recipes: Sequence[Tree], keys: Sequence[str]) -> list[Tree]:
    """Of each recipe less the first, over the seeds that both have: same seed, same order of the data, same noise.

    By each of `keys`, of `NUMBERS`: an estimate and, of two seeds or more, "counts", whether it is more than chance.
    That holds of all together: of n differences each is tested at 5 % / n (Bonferroni), so that where no recipe
    differs from the first, one comparison in twenty, at most, says that any does.
    """
    first, told = recipes[0], []
    pairs: list[tuple[list[Tree], list[Tree]]] = []
    for other in recipes[1:]:
        ours, theirs = ({run["seed"]: run for run in recipe["runs"]} for recipe in (other, first))
        shared = sorted(ours.keys() & theirs.keys())
        pair = [ours[seed] for seed in shared], [theirs[seed] for seed in shared]
        names: Tree = {"name": other["name"], "less": first["name"], "seeds": shared}
        told.append(names | {key: difference(key, *pair) for key in keys})
        pairs.append(pair)
    known = [(one[key], key, pair) for one, pair in zip(told, pairs, strict=True) for key in keys if one[key]]
    tested = [(found, key, pair) for found, key, pair in known if found["seeds"] > 1]
    for found, key, pair in tested:
        found["counts"] = beyond_chance(key, *pair, 1 - 0.05 / len(tested))
    return told


def difference(key: str, ours: Sequence[Tree], theirs: Sequence[Tree], level: float = 0.95) -> Tree | None:
    """An estimate of how much more `ours` have than `theirs`, runs of the same seeds; None where it is not known. That
    of accuracies of two seeds or more is never narrower than that of the shares of all their pictures (Newcombe)."""
    values = apart(key, ours, theirs)
    if not values:
        return None
    interval = None
    if key == "accuracy" and len(values) > 1:
        sides = (counted([run["quality"] for run in runs]) for runs in (ours, theirs))
        interval = share_difference(*sides, z=NormalDist().inv_cdf((1 + level) / 2))
    return estimate(values, interval, level=level)


def beyond_chance(key: str, ours: Sequence[Tree], theirs: Sequence[Tree], level: float) -> bool:
    """Whether the interval of their difference at `level` is without 0. Never where all seeds say the same: shares of
    few pictures often do so by chance, and then nothing is known of how far seeds scatter."""
    values, found = apart(key, ours, theirs), difference(key, ours, theirs, level)
    return found is not None and max(values) - min(values) > 1e-9 and not found["low"] <= 0 <= found["high"]


def apart(key: str, ours: Sequence[Tree], theirs: Sequence[Tree]) -> list[float]:
    """How much more each of `ours` has than its partner; empty where that is not known of all."""
    pairs = [(NUMBERS[key](a), NUMBERS[key](b)) for a, b in zip(ours, theirs, strict=True)]
    known = [a - b for a, b in pairs if a is not None and b is not None]
    return known if len(known) == len(pairs) else []
