"""Reference curves from finished runs: what `fromnoise train` compares losses with. A JSON for each recipe.

python -m benchmarks.curves runs/mnist runs/dit runs/dit-seed1 ...

Runs of one recipe may differ in the seed only, and must be what the recipe is today. A run that was planned longer or
shorter counts up to the step where its learning rate leaves the recipe's, without its average. fromnoise/training/
reference.py says what a band is; here is where its parts come from. How far seeds lie apart is measured where a recipe
has two or more. Of a single run it is not known, and `LEVEL` and `SHIFT` are assumed: the curve says which it is.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from math import exp, hypot, log, sqrt
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch

from benchmarks.harness import run_main
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.core.files import read_lines, write_text
from fromnoise.core.machine import describe_machine
from fromnoise.recipes import all_recipes
from fromnoise.training.environment import FILE as ENVIRONMENT
from fromnoise.training.reference import WIDTH, Averaged, Curve, Trained, Validated, deciding, fingerprint
from fromnoise.training.run import Run, VAERun, read_run

ROOT = Path(__file__).parent.parent
USAGE = "python -m benchmarks.curves RUN ... [--option VALUE ...]"
DESCRIPTION = "Makes the reference curves of recipes from finished runs of them, and tells how wide their bands are."
DERIVED = ("model.channels", "model.size", "model.vae.channels")  # from the data, whatever a recipe has there
TREND = 7  # lines on each side that the trend of a line is the mean of, fewer near both ends
NEAR = 15  # lines on each side that its noise is taken from
LEVEL = 0.02  # assumed of a recipe of one run: how far seeds lie apart, as a share of the loss
SHIFT = 0.1  # and as a share of the steps that the same loss takes
GAIN = 0.2  # and of what the average gains
CHANCE = 0.25  # assumed there, too: how far that scatters at least from one validation to the next, as a share


class Settings(Config):
    """Where to put them."""

    out: Path = ROOT / "fromnoise" / "assets" / "curves"
    """Directory of the JSON files."""


class Told(NamedTuple):
    """The losses of one run, as logarithms."""

    run: Run | VAERun
    machine: dict[str, Any]
    steps: list[int]
    losses: list[float]
    trend: list[float]
    noise: list[float]
    raw: dict[int, float]
    ema: dict[int, float]


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if not words:
        raise ValueError(f"no run is given; usage: {USAGE}")
    groups: dict[str, list[Told]] = {}
    for place in map(Path, words):
        run = read_run(place / "run.yaml")
        groups.setdefault(run.recipe, []).append(told(run, place))
    settings.out.mkdir(parents=True, exist_ok=True)
    for name, runs in groups.items():
        curve = curve_of(name, runs)
        write_text(settings.out / f"{name}.json", as_text(curve))
        print(f"{name}: {as_line(curve)}")


def as_line(curve: Curve) -> str:
    """How far the curve goes, and how wide its bands are."""
    losses = curve.training
    kinds = {"training": [WIDTH * hypot(a, b) for a, b in zip(losses.noise, losses.spread, strict=True)]}
    for name, validated in (("validation raw", curve.validation_raw), ("averaged", curve.validation_ema)):
        kinds[name] = [WIDTH * spread for spread in validated.spread[1:]] or [0.0]
    widths = [f"{name} ± {100 * median(wide):.1f} % ({100 * max(wide):.0f} % at most)" for name, wide in kinds.items()]
    return f"seeds {curve.seeds}, {len(losses.steps)} lines to step {losses.steps[-1]:,.0f}; {', '.join(widths)}"


def told(run: Run | VAERun, place: Path) -> Told:
    """What the run in the directory `place` logged.

    Raises:
        ValueError: one line, when it is no run of its recipe as that is today.
    """
    known = all_recipes()
    if run.recipe not in known:
        raise ValueError(f"{place} is of the recipe {run.recipe!r}, which there is none of today")
    recipe = known[run.recipe]()
    unlike = [found for found in deciding(recipe, run) if found[1] is not None and found[0] not in DERIVED]
    longer = [found for found in unlike if found[0] == "training.steps"]
    if len(unlike) > len(longer):
        key, there, here = next(found for found in unlike if found not in longer)
        raise ValueError(f"{place} is not the recipe {run.recipe} of today: {key} is {here!r} there, now {there!r}")
    plans = (run.training, recipe.training)
    until = min(plan.steps * (1 - plan.decay) for plan in plans) if longer else run.training.steps
    lines = [line for line in read_lines(place / "metrics.jsonl") if line["step"] <= until]
    logged = [line for line in lines if "loss" in line and line["step"] % run.training.log_every == 0]
    losses = [log(line["loss"]) for line in logged]
    validated = {line["step"]: line for line in lines if "validation_raw" in line}
    training = run.training.model_copy(update={"steps": recipe.training.steps})
    return Told(
        run.model_copy(update={"training": training}),
        machine_of(place),
        [line["step"] for line in logged],
        losses,
        trend(losses),
        noise(losses),
        {step: log(line["validation_raw"]) for step, line in validated.items()},
        {step: log(line["validation_ema"]) for step, line in validated.items() if not longer},
    )


def machine_of(place: Path) -> dict[str, Any]:
    """Where a run was trained, as it recorded it; else this machine, and that it is a guess."""
    if lines := read_lines(place / ENVIRONMENT):
        return lines[-1]["machine"]
    return describe_machine(torch.device("cpu")) | {
        "recorded": "where the curve was made, as the run recorded no machine"
    }


def trend(losses: Sequence[float]) -> list[float]:
    """The mean of the lines around each: as many on one side as on the other, so that a slope moves nothing."""
    sides = [min(TREND, k // 3, len(losses) - 1 - k) for k in range(len(losses))]
    return [fmean(losses[k - side : k + side + 1]) for k, side in enumerate(sides)]


def noise(losses: Sequence[float]) -> list[float]:
    """The standard deviation of a line around its trend, from how it lies between the lines before and after it.

    Of independent noise, a line less the mean of its neighbours has 3/2 of its variance; a straight slope cancels, and
    what a bent one adds widens the band where losses still fall steeply. Few lines at the beginning may lie straight by
    chance: no line has less than the median has.
    """
    bends = [losses[k] - (losses[k - 1] + losses[k + 1]) / 2 for k in range(1, len(losses) - 1)]
    found: list[float] = []
    for k in range(len(losses)):
        side = min(NEAR, max(1, k // 2))
        near = bends[max(0, min(k, len(bends)) - side) : k + side]
        found.append(sqrt(fmean(bend**2 for bend in near) / 1.5))
    least = median(found)
    return [max(one, least) for one in found]


def curve_of(recipe: str, runs: Sequence[Told]) -> Curve:
    """The curve of a recipe from one run of it, or from some of different seeds."""
    longest = max(runs, key=lambda run: len(run.losses))
    columns = [[run.trend[k] for run in runs if k < len(run.trend)] for k in range(len(longest.losses))]
    noises = [[run.noise[k] for run in runs if k < len(run.noise)] for k in range(len(longest.losses))]
    window = longest.run.training.log_every
    training = Trained(
        steps=tuple(step - (window - 1) / 2 for step in longest.steps),
        mean=tuple(significant(exp(fmean(column))) for column in columns),
        noise=tuple(significant(sqrt(fmean(one**2 for one in column))) for column in noises),
        spread=tuple(map(significant, apart(columns) if len(runs) > 1 else assumed(longest))),
        window=window,
    )
    run = runs[0].run
    return Curve(
        recipe=recipe,
        sha256=fingerprint(run),
        settings=run.model_dump(mode="json"),
        seeds=tuple(sorted(one.run.training.seed for one in runs)),
        command=f"fromnoise train {recipe}",
        machine=longest.machine,
        made=explained(runs),
        training=training,
        validation_raw=validated([one.raw for one in runs], longest, training),
        validation_ema=validated([one.ema for one in runs], longest, training),
        averaged=averaged([{step: one.ema[step] - one.raw[step] for step in one.ema if step} for one in runs]),
    )


def apart(columns: Sequence[Sequence[float]]) -> list[float]:
    """How far a further seed lies from the mean of those in each column, as a standard deviation.

    Lines near each other are taken together, more of them later on, and as many as are before it where fewer than two
    runs go on.
    """
    variances = [statistics.variance(column) if len(column) > 1 else None for column in columns]
    known = [one for one in variances if one is not None]
    found = []
    for k, column in enumerate(columns):
        near = known[k - k // 2 : k + k // 2 + 1] or known[-len(known) // 2 :]
        found.append(sqrt(fmean(near) * (1 + 1 / len(column))))
    return found


def assumed(run: Told) -> list[float]:
    """The same where there is one run only: what `LEVEL` and, where losses fall steeply, `SHIFT` come to."""
    slopes = []
    for k in range(len(run.trend)):
        side = max(1, k // 4)  # far enough for chance to be little beside the slope
        first, last = max(0, k - side), min(len(run.trend) - 1, k + side)
        slopes.append((run.trend[last] - run.trend[first]) / log(run.steps[last] / run.steps[first]))
    return [hypot(LEVEL, SHIFT * slope) for slope in slopes]


def validated(tables: Sequence[dict[int, float]], longest: Told, training: Trained) -> Validated:
    """Validation losses: their mean and how far seeds lie apart, measured where there are several; else as that of the
    training losses there and, since fixed samples are few, by as much again as a line of these scatters."""
    steps = max(tables, key=len)
    means, spreads = [], []
    for step in steps:
        column = [table[step] for table in tables if step in table]
        means.append(significant(exp(fmean(column))))
        spreads.append(significant(hypot(*near(step, longest, training))))
    if len(tables) > 1:
        columns = [[table[step] for table in tables if step in table] for step in steps if step]
        known = fmean(statistics.variance(column) for column in columns if len(column) > 1)
        spreads = [significant(sqrt(known * (1 + 1 / len(tables))))] * len(steps)
    return Validated(steps=tuple(steps), mean=tuple(means), spread=tuple(spreads))


def averaged(tables: Sequence[dict[int, float]]) -> Averaged:
    """What the average gains: its mean, and how far seeds lie apart where there are several; else `GAIN` of it, and by
    chance as far as validations lie from those before and after them, at least `CHANCE` of what it gains on average."""
    steps = max(tables, key=len)
    columns = [[table[step] for table in tables if step in table] for step in steps]
    means = [fmean(column) for column in columns]
    if not steps:
        return Averaged(steps=(), mean=(), noise=0.0, spread=())
    if len(tables) > 1:
        known = fmean(statistics.variance(column) for column in columns if len(column) > 1)
        spreads, scatter = [sqrt(known * (1 + 1 / len(tables)))] * len(steps), 0.0
    else:
        bends = [means[k] - (means[k - 1] + means[k + 1]) / 2 for k in range(1, len(means) - 1)]
        least = CHANCE * fmean(map(abs, means))
        scatter = max(least, sqrt(fmean(bend**2 for bend in bends) / 1.5)) if bends else least
        spreads = [GAIN * abs(mean) for mean in means]
    means, spreads = (tuple(map(significant, values)) for values in (means, spreads))
    return Averaged(steps=tuple(steps), mean=means, noise=significant(scatter), spread=spreads)


def near(step: int, longest: Told, training: Trained) -> tuple[float, float]:
    """Spread and noise of the training losses at a step, or at the first that is known."""
    k = min(range(len(longest.steps)), key=lambda k: abs(longest.steps[k] - step))
    return training.spread[k], training.noise[k]


def explained(runs: Sequence[Told]) -> tuple[str, ...]:
    """How the curve was made."""
    lines = [f"seed {one.run.training.seed} to step {one.steps[-1]:,}" for one in runs]
    sentences = [
        f"Mean: of the logarithms of the losses of {', '.join(lines)}, smoothed over {2 * TREND + 1} lines.",
        f"Noise: how a line lies between its neighbours, over the {2 * NEAR + 1} lines around it.",
    ]
    if len(runs) > 1:
        sentences.append("Spread: measured between these seeds, held where fewer than two go on, for a further run.")
    else:
        sentences.append(
            f"Spread: assumed, for it is not known of one run: {LEVEL:.0%} of the loss, and {SHIFT:.0%} of the steps "
            "that it takes to reach it; of a validation loss, the noise of a line besides; of what the average gains, "
            f"{GAIN:.0%} of it, and by chance at each validation {CHANCE:.0%} or more of its mean."
        )
    if not runs[0].ema:
        sentences.append("The run was planned for other steps: it counts while its learning rate is the recipe's.")
    return tuple(sentences)


def significant(value: float) -> float:
    """Four digits, which is more than is known."""
    return float(f"{value:.4g}")


def as_text(curve: Curve) -> str:
    """A line for each field."""
    fields = curve.model_dump(mode="json")
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()) + "\n}\n"


if __name__ == "__main__":
    run_main(main)
