"""What the runs of a recipe say together, and how far recipes are apart, pair by pair of one seed."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from fromnoise.evaluation.intervals import estimate, wilson

JUDGED = ("accuracy", "frechet", "frechet_floor", "diversity", "images_per_second")

Tree = dict[str, Any]


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
    right = sum(round(one["accuracy"] * one["samples"]) for one in found)
    return wilson(right, sum(one["samples"] for one in found))


def differences(recipes: Sequence[Tree]) -> list[Tree]:
    """Of each recipe less the first, over the seeds that both have: same seed, same order of the data, same noise."""
    first, told = recipes[0], []
    for other in recipes[1:]:
        ours, theirs = ({run["seed"]: run for run in recipe["runs"]} for recipe in (other, first))
        shared = sorted(ours.keys() & theirs.keys())
        found: Tree = {"name": other["name"], "less": first["name"], "seeds": shared}
        for key in ("accuracy", "frechet", "diversity"):
            pairs = [(ours[seed]["quality"][key], theirs[seed]["quality"][key]) for seed in shared]
            known = pairs and all(a is not None and b is not None for a, b in pairs)
            found[key] = estimate([a - b for a, b in pairs]) if known else None
        errors = [ours[seed]["denoising"]["velocity"] - theirs[seed]["denoising"]["velocity"] for seed in shared]
        found["velocity_error"] = estimate(errors) if shared else None
        told.append(found)
    return told
