"""Reference curves from finished runs: what `fromnoise train` compares losses with. A JSON for each recipe.

python -m benchmarks.curves runs/mnist runs/dit runs/dit-seed1 ...

Runs of one recipe may differ in the seed only, and must be what the recipe is today. A run that was planned longer or
shorter counts up to the step where its learning rate leaves the recipe's, without its average. fromnoise/training/
reference.py says what a band is; here is where its parts come from.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from math import exp, hypot, log, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from benchmarks.harness import describe_machine
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, explain
from fromnoise.core.files import write_text
from fromnoise.recipes import RECIPES, VAE_RECIPES
from fromnoise.training.environment import FILE as ENVIRONMENT
from fromnoise.training.reference import Curve, Trained, Validated, deciding, fingerprint
from fromnoise.training.run import Run, VAERun, read_run

ROOT = Path(__file__).parent.parent
USAGE = "python -m benchmarks.curves RUN ... [--option VALUE ...]"
DESCRIPTION = "Makes the reference curves of recipes from finished runs of them, and tells how wide their bands are."
DERIVED = ("model.channels", "model.size", "model.vae.channels")  # from the data, whatever a recipe has there
TREND = 7  # lines on each side that the trend of a line is the mean of, fewer near both ends
NEAR = 15  # lines on each side that its noise is taken from
SETTLED = 100  # steps: the noise that recipes are compared by is that of later lines


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


class Spread(NamedTuple):
    """How far seeds of one recipe lie apart: standard deviations of one run's logarithm."""

    recipe: str
    noise: float  # of a line, which tells what the spread of another recipe is to be scaled by
    lines: list[float]
    raw: float
    ema: float


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if not words:
        raise ValueError(f"no run is given; usage: {USAGE}")
    groups: dict[str, list[Told]] = {}
    for place in map(Path, words):
        run = read_run(place / "run.yaml")
        groups.setdefault(run.recipe, []).append(told(run, place))
    spreads = [spread_of(name, runs) for name, runs in groups.items() if len(runs) > 1]
    if not spreads:
        raise ValueError("every run is the only one of its recipe; two seeds of one recipe or more are needed")
    settings.out.mkdir(parents=True, exist_ok=True)
    for name, runs in groups.items():
        curve = curve_of(name, runs, spreads)
        write_text(settings.out / f"{name}.json", as_text(curve))
        widths = [3 * hypot(a, b) for a, b in zip(curve.training.noise, curve.training.spread, strict=True)]
        print(
            f"{name}: seeds {curve.seeds}, {len(widths)} lines to step {curve.training.steps[-1]:,.0f}; the band is "
            f"± {100 * statistics.median(widths):.1f} % (median), {100 * max(widths):.0f} % at most; validation "
            f"± {300 * curve.validation_raw.spread:.1f} % raw, ± {300 * curve.validation_ema.spread:.1f} % averaged"
        )


def told(run: Run | VAERun, place: Path) -> Told:
    """What the run in the directory `place` logged.

    Raises:
        ValueError: one line, when it is no run of its recipe as that is today.
    """
    recipes = {**RECIPES, **VAE_RECIPES}
    if run.recipe not in recipes:
        raise ValueError(f"{place} is of the recipe {run.recipe!r}, which there is none of today")
    recipe = recipes[run.recipe]()
    unlike = [found for found in deciding(recipe, run) if found[1] is not None and found[0] not in DERIVED]
    longer = [found for found in unlike if found[0] == "training.steps"]
    if len(unlike) > len(longer):
        key, there, here = next(found for found in unlike if found not in longer)
        raise ValueError(f"{place} is not the recipe {run.recipe} of today: {key} is {here!r} there, now {there!r}")
    plans = (run.training, recipe.training)
    until = min(plan.steps * (1 - plan.decay) for plan in plans) if longer else run.training.steps
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["step"] <= until]
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
    record = place / ENVIRONMENT
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8").splitlines()[-1])["machine"]
    here = {key: value for key, value in describe_machine().items() if key != "load_before"}
    return here | {"recorded": "where the curve was made, as the run recorded no machine"}


def trend(losses: Sequence[float]) -> list[float]:
    """The mean of the lines around each: as many on one side as on the other, so that a slope moves nothing."""
    sides = [min(TREND, k // 3, len(losses) - 1 - k) for k in range(len(losses))]
    return [statistics.fmean(losses[k - side : k + side + 1]) for k, side in enumerate(sides)]


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
        found.append(sqrt(statistics.fmean(bend**2 for bend in near) / 1.5))
    least = statistics.median(found)
    return [max(one, least) for one in found]


def spread_of(recipe: str, runs: Sequence[Told]) -> Spread:
    """How far the seeds of a recipe lie apart, up to the step that two of them reached."""
    columns = [[run.trend[k] for run in runs if k < len(run.trend)] for k in range(max(len(r.trend) for r in runs))]
    apart = [statistics.variance(column) for column in columns if len(column) > 1]
    smooth = [sqrt(statistics.fmean(apart[max(0, k - k // 2) : k + k // 2 + 1])) for k in range(len(apart))]

    def validated(kind: str) -> float:
        tables: list[dict[int, float]] = [getattr(run, kind) for run in runs]
        rows = [[table[step] for table in tables if step in table] for step in max(tables, key=len) if step]
        return sqrt(statistics.fmean(statistics.variance(row) for row in rows if len(row) > 1))

    return Spread(recipe, settled(runs), smooth, validated("raw"), validated("ema"))


def settled(runs: Sequence[Told]) -> float:
    """The noise of a line once the first steps are over."""
    return statistics.median(
        one for run in runs for step, one in zip(run.steps, run.noise, strict=True) if step > SETTLED
    )


def curve_of(recipe: str, runs: Sequence[Told], spreads: Sequence[Spread]) -> Curve:
    """The curve of a recipe, from its own spread or, of a single run, from that of the recipes that have one."""
    first, length = runs[0], max(len(run.losses) for run in runs)
    longest = max(runs, key=lambda run: len(run.losses))
    own = [spread for spread in spreads if spread.recipe == recipe]
    used = own or list(spreads)
    scales = [1.0 if own else max(1.0, settled(runs) / spread.noise) for spread in used]
    further = sqrt(1 + 1 / len(runs))  # how far a further run lies from the mean of these, by one run's deviation

    def widest(values: Iterable[float]) -> float:
        return significant(further * max(scale * value for scale, value in zip(scales, values, strict=True)))

    window = first.run.training.log_every
    columns = [[run.trend[k] for run in runs if k < len(run.trend)] for k in range(length)]
    noises = [[run.noise[k] for run in runs if k < len(run.noise)] for k in range(length)]
    training = Trained(
        steps=tuple(step - (window - 1) / 2 for step in longest.steps),
        mean=tuple(significant(exp(statistics.fmean(column))) for column in columns),
        noise=tuple(significant(sqrt(statistics.fmean(one**2 for one in column))) for column in noises),
        spread=tuple(widest(spread.lines[min(k, len(spread.lines) - 1)] for spread in used) for k in range(length)),
        window=window,
    )
    run = first.run
    return Curve(
        recipe=recipe,
        sha256=fingerprint(run),
        settings=run.model_dump(mode="json"),
        seeds=tuple(sorted(one.run.training.seed for one in runs)),
        command=f"fromnoise train {recipe}",
        machine=longest.machine,
        made=explained(recipe, runs, used, bool(own)),
        training=training,
        validation_raw=validated([one.raw for one in runs], widest(spread.raw for spread in used)),
        validation_ema=validated([one.ema for one in runs], widest(spread.ema for spread in used)),
    )


def validated(tables: Sequence[dict[int, float]], spread: float) -> Validated:
    """The mean of the seeds' validation losses, where there are any."""
    steps = max(tables, key=len)
    means = [statistics.fmean(table[step] for table in tables if step in table) for step in steps]
    return Validated(steps=tuple(steps), mean=tuple(significant(exp(mean)) for mean in means), spread=spread)


def explained(recipe: str, runs: Sequence[Told], used: Sequence[Spread], own: bool) -> tuple[str, ...]:
    """How the curve was made."""
    lines = [f"seed {one.run.training.seed} to step {one.steps[-1]:,}" for one in runs]
    sentences = [
        f"Mean: of the logarithms of the losses of {', '.join(lines)}, smoothed over {2 * TREND + 1} lines.",
        f"Noise: how a line lies between its neighbours, over the {2 * NEAR + 1} lines around it.",
    ]
    if own:
        sentences.append("Spread: between these seeds, held where fewer than two go on, for a further run.")
    else:
        names = ", ".join(spread.recipe for spread in used)
        sentences.append(
            f"Spread: not known of one run; the widest of that of {names}, where its losses scatter more than theirs "
            f"by as much wider, for a further run."
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
    try:
        main(sys.argv[1:])
    except ValidationError as error:
        sys.exit(f"error: {explain(error)}")
    except ValueError as error:
        sys.exit(f"error: {error}")
