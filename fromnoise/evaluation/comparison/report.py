"""A comparison as one HTML page that fetches nothing: charts are SVG within it, pictures PNG within it.

Every number of a comparison that the page shows stands in a <data value> as report.json has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from fromnoise.evaluation.comparison.measure import SWEEP_STEPS
from fromnoise.pages.charts import COLOURS, Line, chart
from fromnoise.pages.page import (
    Shown,
    count,
    data,
    estimate,
    figures,
    how,
    large,
    notes,
    page,
    percent,
    plain,
    png,
    points,
    signed,
    table,
)
from fromnoise.pages.page import chip as chip_of

Tree = dict[str, Any]

DIFFERENCES: dict[str, tuple[str, Shown]] = {
    "accuracy": ("accuracy", points),
    "frechet": ("Frechet distance", signed),
    "diversity": ("diversity", signed),
    "velocity_error": ("velocity error", signed),
}
"""What recipes are compared by, in words, and how a difference of it is shown."""


def report(results: Tree) -> str:
    """The page of what `compare` found."""
    recipes = [recipe | {"colour": COLOURS[i % len(COLOURS)]} for i, recipe in enumerate(results["recipes"])]
    judged = results["judge"]["name"] != "none"
    sections = [
        ("In short", _short(results, recipes)),
        ("Errors by time and by noise", _errors(recipes)),
        ("Pictures from the same noise", _pictures(results, recipes)),
        ("Guidance", _guidance(results, recipes)),
        ("Steps and speed", _speed(results, recipes, judged)),
        ("What was compared", _recipes(results, recipes)),
    ]
    intro = (
        f"<p>{escape(results['equal'])} Runs of one seed see the data in the same order; all pictures are drawn from "
        f"the same noise.</p>{notes(results['notes'])}"
    )
    end = "Written by fromnoise compare. All numbers: report.json, beside this file."
    return page(results["title"], intro, sections, end)


def _short(results: Tree, recipes: Sequence[Tree]) -> str:
    samples = results["asked"]["samples"]
    head = ["recipe", "parameters", "FLOPs a sample", "trained for", "velocity error"]
    head += ["accuracy", "Frechet (floor)", "diversity", "images/s"]
    rows = []
    for recipe in recipes:
        known = recipe["summary"]
        steps = f"{data(recipe['training_steps'], count)} steps of {data(recipe['batch'], count)}"
        frechet = estimate(known["frechet"], plain)
        if known["frechet_floor"]:
            frechet += f" <small>({data(known['frechet_floor']['mean'], plain)})</small>"
        cells = [_chip(recipe), data(recipe["parameters"], large), data(recipe["flops"], large), steps]
        cells += [estimate(known["velocity_error"], plain), estimate(known["accuracy"], percent), frechet]
        cells += [estimate(known["diversity"], plain), estimate(known["images_per_second"], plain)]
        rows.append(cells)
    about = (
        f"<p>{escape(results['judge']['about'])}</p>"
        f"<p>Quality is that of {samples:,} pictures, drawn as each recipe draws, by averaged weights. In brackets is "
        f"the 95 % interval: over seeds (Student's t) where there are two or more; that of a share is never narrower "
        f"than its pictures allow (Wilson). Velocity error: how far the expected picture is from the true one, as told "
        f"below; lower is better. FLOPs are those of one forward of one picture; a guided step takes two.</p>"
    )
    return table(head, rows) + how(about) + differences_table(results["differences"], DIFFERENCES)


def differences_table(found: Sequence[Tree], keys: Mapping[str, tuple[str, Shown]]) -> str:
    """The paired differences by `keys`, each with its name and how it is shown, where seeds are enough to say how sure
    they are; in bold what is more than chance."""

    def cell(one: Tree | None, shown: Shown) -> str:
        return f"<b>{estimate(one, shown)}</b>" if one and one["counts"] else estimate(one, shown)

    paired = [one for one in found if len(one["seeds"]) > 1]
    known = [one[key] for one in paired for key in keys if one[key]]
    if not known:
        return ""
    rows = [
        [
            f"{escape(one['name'])} less {escape(one['less'])}",
            *(cell(one[key], shown) for key, (_, shown) in keys.items()),
        ]
        for one in paired
    ]
    counting, level = sum(one["counts"] for one in known), 100 - 5 / len(known)
    about = (
        "<p>Differences within a seed, where chance is shared, each with its own 95 % interval. Of many such intervals "
        "some are without 0 by chance alone. So a difference counts, and is in bold, only where its interval at "
        f"{level:.4g} % is without 0, too (Bonferroni, for {len(known)} differences), and its seeds do not all say the "
        f"same: if nothing differed, one page in twenty at most would have anything in bold. Here "
        f"{counting or 'none'} of {len(known)} {'count' if counting > 1 else 'counts'}; with more seeds smaller ones "
        f"would, and with two hardly any can.</p>"
    )
    return "<h3>Differences</h3>" + table(["", *(label for label, _ in keys.values())], rows) + how(about)


def _errors(recipes: Sequence[Tree]) -> str:
    def lines(values: Callable[[Tree], Sequence[float]], x: Callable[[Tree], Sequence[float]]) -> list[Line]:
        return [Line(r["name"], r["colour"], x(r), [values(run) for run in r["runs"]]) for r in recipes]

    def seen(kind: str) -> Callable[[Tree], Sequence[float]]:
        return lambda recipe: [step * recipe["batch"] for step in recipe["runs"][0][kind]["step"]]

    bins = len(recipes[0]["runs"][0]["denoising"]["by_time"])
    middles = [(i + 0.5) / bins for i in range(bins)]
    time = "t (0 data, 1 noise)"
    common = [
        chart(
            lines(lambda run: run["denoising"]["by_noise"], lambda recipe: recipe["runs"][0]["denoising"]["log_snr"]),
            "log(alpha² / sigma²): noise to the left", "error of the expected picture", name="noise", log_y=True,
        ),
        chart(
            lines(lambda run: run["denoising"]["by_time"], lambda recipe: middles),
            time, "error of the expected picture", name="time", log_y=True,
        ),
    ]  # fmt: skip
    own = [
        chart(
            lines(lambda run: run["training"]["loss"], seen("training")),
            "pictures trained on", "training loss", name="training", log_y=True,
        ),
        chart(
            lines(lambda run: run["validation"]["ema"], seen("validation")),
            "pictures trained on", "validation loss", name="validation", log_y=True,
        ),
        chart(
            lines(lambda run: run["validation"]["ema_by_time"], lambda recipe: middles),
            time, "validation loss", name="bins", log_y=True,
        ),
    ]  # fmt: skip
    told = (
        "<p>All models are shown the same 100 validation pictures in the same noise; the mean squared error of the "
        "picture that each expects behind it is taken. <b>First chart</b>, at equal ratios of signal to noise: only "
        "here can lines be compared point by point, since paths reach a ratio at different times. <b>Second chart and "
        "table</b>, by tenths of each one's own t. The velocity error of the summary is the first chart in one number: "
        "the mean of error / u² over shares of noise u = sigma / (alpha + sigma), which is the error of the velocity "
        "on a straight path.</p>"
    )
    warned = (
        "<p>Each recipe's own loss, in its own target and weights, tells how its training went. Its height does not "
        "tell who is better. Validation is by averaged weights; the last chart is by tenths of t, at the end.</p>"
    )
    rows = [[_chip(recipe), *(estimate(one, plain) for one in recipe["summary"]["by_time"])] for recipe in recipes]
    by_time = table(["error by t", *(f"{middle:.2f}" for middle in middles)], rows)
    return figures(common) + how(told) + by_time + "<h3>Each one's own loss</h3>" + figures(own) + how(warned)


def _pictures(results: Tree, recipes: Sequence[Tree]) -> str:
    shown = []
    for recipe in recipes:
        for run in recipe["runs"]:
            about = f"{_chip(recipe)} <small>seed {run['seed']}</small>"
            shown.append(f"<figure><figcaption>{about}</figcaption>{_drawn(run['pictures']['png'], recipe)}</figure>")
    prompts = ", ".join(escape(prompt) for prompt in results["prompts"])
    about = (
        f"<p>Nothing is picked. Columns: {prompts}. Each row is other noise; pictures at the same place of two grids "
        f"are drawn from the same noise.</p>"
    )
    return f"<div class=grids>{''.join(shown)}</div>" + how(about)


def _guidance(results: Tree, recipes: Sequence[Tree]) -> str:
    guided = [recipe for recipe in recipes if recipe["summary"]["by_guidance"]]
    if not guided:
        return "<p>None of these models is told what to draw, so none can be guided.</p>"
    charts = _sweep(guided, "by_guidance", "guidance", "guidance scale", ("accuracy", "frechet", "diversity"), False)
    scales = results["asked"]["guidances"]
    numbers = _sweep_table(guided, "by_guidance", [f"{scale:g}" for scale in scales])
    strips = []
    for recipe in guided:
        rows = "".join(
            f"<tr><th>{point['guidance']:g}</th><td>{_drawn(point['png'], recipe)}</td></tr>"
            for point in recipe["runs"][0]["by_guidance"]
        )
        strips.append(f"<figure><figcaption>{_chip(recipe)}</figcaption><table class=strips>{rows}</table></figure>")
    about = (
        f"<p>Guidance pushes a picture away from what the model would draw without a prompt: scale 1 does nothing, "
        f"more makes pictures truer to the prompt and more alike. {results['asked']['sweep']:,} pictures at each "
        f"scale, in at most {SWEEP_STEPS} steps, by the sampler of each recipe. The Frechet distance of fewer pictures "
        f"is higher, and so is its floor: compare it with the floor in this table only. Below, the same ten pictures "
        f"at each scale (first seed).</p>"
    )
    return figures(charts) + how(about) + numbers + f"<div class=grids>{''.join(strips)}</div>"


def _speed(results: Tree, recipes: Sequence[Tree], judged: bool) -> str:
    keys = ("images_per_second", "accuracy", "frechet") if judged else ("images_per_second",)
    charts = _sweep(recipes, "by_steps", "steps", "steps", keys, True)
    numbers = _sweep_table(recipes, "by_steps", [f"{steps} steps" for steps in results["asked"]["speeds"]])
    machine = results["machine"]
    about = (
        f"<p>Each recipe's own sampler and guidance at other numbers of steps, {results['asked']['sweep']:,} pictures "
        f"each. Speeds were taken on one machine ({escape(machine['device'])}, {escape(machine['processor'])}, "
        f"{machine['threads']} threads, torch {escape(machine['torch'])}), uncompiled, the models in turns; whatever "
        f"else ran there slowed them. A guided step asks the network twice.</p>"
    )
    return figures(charts) + how(about) + numbers


def _sweep(recipes: Sequence[Tree], series: str, x: str, label: str, keys: Sequence[str], log_x: bool) -> list[str]:
    """A chart of each number that a judge told of along a sweep."""
    charts = []
    for key in keys:
        lines = [
            Line(r["name"], r["colour"], [point[x] for point in r["runs"][0][series]],
                 [[point[key] for point in run[series]] for run in r["runs"]])
            for r in recipes if r["summary"][series] and r["summary"][series][0][key] is not None
        ]  # fmt: skip
        if lines:
            name, speed = f"{x}-{key}".replace("_", "-"), key == "images_per_second"
            charts.append(chart(lines, label, _NAMES[key], name=name, log_x=log_x, log_y=speed, marks=True))
    return charts


def _sweep_table(recipes: Sequence[Tree], series: str, columns: Sequence[str]) -> str:
    rows = []
    for recipe in recipes:
        for key, shown in (("accuracy", percent), ("frechet", plain), ("frechet_floor", plain),
                           ("diversity", plain), ("images_per_second", plain)):  # fmt: skip
            points = recipe["summary"][series]
            if points and points[0][key] is not None:
                rows.append([_chip(recipe), _NAMES[key], *(estimate(point[key], shown) for point in points)])
    return table(["", "", *columns], rows)


def _recipes(results: Tree, recipes: Sequence[Tree]) -> str:
    head = ["recipe", "backbone", "reads", "path", "asked for", "error in", "sampler", "steps", "guidance"]
    head += ["pictures trained on", "training FLOPs", "seeds", "seconds trained"]
    rows = []
    for recipe in recipes:
        words = [
            escape(str(recipe[key])) for key in ("backbone", "conditioner", "path", "target", "measure", "sampler")
        ]
        numbers = [data(recipe["steps"], count), data(recipe["guidance"], plain)]
        numbers += [data(recipe["trained_on"], count), data(recipe["compute"], large)]
        seeds = ", ".join(str(run["seed"]) for run in recipe["runs"])
        seconds = estimate(recipe["summary"]["training_seconds"], count)
        rows.append([_chip(recipe), *words, *numbers, seeds, seconds])
    read = ", ".join(f"{escape(key)} {escape(str(value))}" for key, value in results["data"].items() if key != "path")
    hashes = "".join(
        f"<li>{escape(run['name'])}, seed {run['seed']}: <code>{run['checkpoint']}</code></li>"
        for recipe in recipes
        for run in recipe["runs"]
    )
    return table(head, rows) + f"<p>Data: {read}. Checkpoints (sha256):</p><ul class=hashes>{hashes}</ul>"


_NAMES = {
    "accuracy": "accuracy",
    "frechet": "Frechet distance",
    "frechet_floor": "its floor",
    "diversity": "diversity",
    "images_per_second": "images/s",
}


def _chip(recipe: Tree) -> str:
    return chip_of(recipe["name"], recipe["colour"])


def _drawn(encoded: str, recipe: Tree) -> str:
    return png(encoded, f"drawn by {recipe['name']}")
