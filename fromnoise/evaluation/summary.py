"""What the runs of a recipe say together, and how far recipes are apart, pair by pair of one seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fromnoise.evaluation.estimate import estimate

JUDGED = ("accuracy", "frechet", "frechet_floor", "diversity", "images_per_second")

Tree = dict[str, Any]


def summary(runs: Sequence[Tree]) -> Tree:
    """Estimates over the seeds of one recipe: of its quality, of its errors, at each number of steps, at each scale."""
    by_steps = [together(points, "steps") for points in zip(*(run["by_steps"] for run in runs), strict=True)]
    by_guidance = [together(points, "guidance") for points in zip(*(run["by_guidance"] for run in runs), strict=True)]
    return {
        **judged([run["quality"] for run in runs]),
        "velocity_error": estimate([run["denoising"]["velocity"] for run in runs]),
        "by_time": [estimate(errors) for errors in zip(*(run["denoising"]["by_time"] for run in runs), strict=True)],
        "validation": estimate([run["validation"]["ema"][-1] for run in runs]),
        "training_seconds": estimate([run["seconds"] for run in runs]),
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
        interval = found[0]["accuracy_interval"] if key == "accuracy" else None
        told[key] = estimate(values, interval) if len(values) == len(found) else None
    return told


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
