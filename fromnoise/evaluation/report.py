"""A comparison as one HTML page that fetches nothing: charts are SVG within it, pictures PNG within it.

Every number of a comparison that the page shows stands in a <data value> as report.json has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from fromnoise.evaluation.charts import COLOURS, Line, chart
from fromnoise.evaluation.measure import SWEEP_STEPS

Tree = dict[str, Any]
Shown = Callable[[float], str]


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
    body = "\n".join(f"<section>\n<h2>{title}</h2>\n{content}\n</section>" for title, content in sections)
    title = escape(results["title"])
    return _PAGE.format(title=title, style=_STYLE, body=body, equal=escape(results["equal"]), notes=_notes(results))


def _notes(results: Tree) -> str:
    return "<ul class=notes>" + "".join(f"<li>{escape(note)}</li>" for note in results["notes"]) + "</ul>"


def _short(results: Tree, recipes: Sequence[Tree]) -> str:
    samples = results["asked"]["samples"]
    head = ["recipe", "parameters", "FLOPs a sample", "trained for", "velocity error"]
    head += ["accuracy", "Frechet (floor)", "diversity", "images/s"]
    rows = []
    for recipe in recipes:
        known = recipe["summary"]
        steps = f"{_data(recipe['training_steps'], _count)} steps of {_data(recipe['batch'], _count)}"
        frechet = _estimate(known["frechet"], _plain)
        if known["frechet_floor"]:
            frechet += f" <small>({_data(known['frechet_floor']['mean'], _plain)})</small>"
        cells = [_chip(recipe), _data(recipe["parameters"], _large), _data(recipe["flops"], _large), steps]
        cells += [_estimate(known["velocity_error"], _plain), _estimate(known["accuracy"], _percent), frechet]
        cells += [_estimate(known["diversity"], _plain), _estimate(known["images_per_second"], _plain)]
        rows.append(cells)
    about = (
        f"<p>{escape(results['judge']['about'])}</p>"
        f"<p>Quality is that of {samples:,} pictures, drawn as each recipe draws, by averaged weights. In brackets is "
        f"the 95 % interval: over seeds (Student's t) where there are two or more; that of a share is never narrower "
        f"than its pictures allow (Wilson). Velocity error: how far the expected picture is from the true one, as told "
        f"below; lower is better. FLOPs are those of one forward of one picture; a guided step takes two.</p>"
    )
    return _table(head, rows) + _how(about) + _differences(results)


def _differences(results: Tree) -> str:
    """The paired differences, where there are seeds enough to say how sure they are."""
    rows = []
    for found in results["differences"]:
        if len(found["seeds"]) > 1:
            cells = [f"{escape(found['name'])} less {escape(found['less'])}"]
            cells += [_estimate(found["accuracy"], _points), _estimate(found["frechet"], _signed)]
            rows.append([*cells, _estimate(found["diversity"], _signed), _estimate(found["velocity_error"], _signed)])
    if not rows:
        return ""
    about = (
        "<p>Differences within a seed, where chance is shared. An interval without 0 is a difference that counts.</p>"
    )
    return "<h3>Differences</h3>" + _table(["", "accuracy", "Frechet", "diversity", "velocity error"], rows) + about


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
    rows = [[_chip(recipe), *(_estimate(one, _plain) for one in recipe["summary"]["by_time"])] for recipe in recipes]
    table = _table(["error by t", *(f"{middle:.2f}" for middle in middles)], rows)
    return _figures(common) + _how(told) + table + "<h3>Each one's own loss</h3>" + _figures(own) + _how(warned)


def _pictures(results: Tree, recipes: Sequence[Tree]) -> str:
    shown = []
    for recipe in recipes:
        for run in recipe["runs"]:
            about = f"{_chip(recipe)} <small>seed {run['seed']}</small>"
            shown.append(
                f"<figure><figcaption>{about}</figcaption>{_png(run['pictures']['png'], recipe['name'])}</figure>"
            )
    prompts = ", ".join(escape(prompt) for prompt in results["prompts"])
    about = (
        f"<p>Nothing is picked. Columns: {prompts}. Each row is other noise; pictures at the same place of two grids "
        f"are drawn from the same noise.</p>"
    )
    return f"<div class=grids>{''.join(shown)}</div>" + _how(about)


def _guidance(results: Tree, recipes: Sequence[Tree]) -> str:
    guided = [recipe for recipe in recipes if recipe["summary"]["by_guidance"]]
    if not guided:
        return "<p>None of these models is told what to draw, so none can be guided.</p>"
    charts = _sweep(guided, "by_guidance", "guidance", "guidance scale", ("accuracy", "frechet", "diversity"), False)
    scales = results["asked"]["guidances"]
    table = _sweep_table(guided, "by_guidance", [f"{scale:g}" for scale in scales])
    strips = []
    for recipe in guided:
        rows = "".join(
            f"<tr><th>{point['guidance']:g}</th><td>{_png(point['png'], recipe['name'])}</td></tr>"
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
    return _figures(charts) + _how(about) + table + f"<div class=grids>{''.join(strips)}</div>"


def _speed(results: Tree, recipes: Sequence[Tree], judged: bool) -> str:
    keys = ("images_per_second", "accuracy", "frechet") if judged else ("images_per_second",)
    charts = _sweep(recipes, "by_steps", "steps", "steps", keys, True)
    table = _sweep_table(recipes, "by_steps", [f"{steps} steps" for steps in results["asked"]["speeds"]])
    machine = results["machine"]
    about = (
        f"<p>Each recipe's own sampler and guidance at other numbers of steps, {results['asked']['sweep']:,} pictures "
        f"each. Speeds were taken on one machine ({escape(machine['device'])}, {escape(machine['processor'])}, "
        f"{machine['threads']} threads, torch {escape(machine['torch'])}), uncompiled, the models in turns; whatever "
        f"else ran there slowed them. A guided step asks the network twice.</p>"
    )
    return _figures(charts) + _how(about) + table


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
        for key, shown in (("accuracy", _percent), ("frechet", _plain), ("frechet_floor", _plain),
                           ("diversity", _plain), ("images_per_second", _plain)):  # fmt: skip
            points = recipe["summary"][series]
            if points and points[0][key] is not None:
                rows.append([_chip(recipe), _NAMES[key], *(_estimate(point[key], shown) for point in points)])
    return _table(["", "", *columns], rows)


def _recipes(results: Tree, recipes: Sequence[Tree]) -> str:
    head = ["recipe", "backbone", "reads", "path", "asked for", "error in", "sampler", "steps", "guidance"]
    head += ["pictures trained on", "training FLOPs", "seeds", "seconds trained"]
    rows = []
    for recipe in recipes:
        words = [
            escape(str(recipe[key])) for key in ("backbone", "conditioner", "path", "target", "measure", "sampler")
        ]
        numbers = [_data(recipe["steps"], _count), _data(recipe["guidance"], _plain)]
        numbers += [_data(recipe["trained_on"], _count), _data(recipe["compute"], _large)]
        seeds = ", ".join(str(run["seed"]) for run in recipe["runs"])
        seconds = _estimate(recipe["summary"]["training_seconds"], _count)
        rows.append([_chip(recipe), *words, *numbers, seeds, seconds])
    data = ", ".join(f"{escape(key)} {escape(str(value))}" for key, value in results["data"].items() if key != "path")
    hashes = "".join(
        f"<li>{escape(run['name'])}, seed {run['seed']}: <code>{run['checkpoint']}</code></li>"
        for recipe in recipes
        for run in recipe["runs"]
    )
    return _table(head, rows) + f"<p>Data: {data}. Checkpoints (sha256):</p><ul class=hashes>{hashes}</ul>"


_NAMES = {
    "accuracy": "accuracy",
    "frechet": "Frechet distance",
    "frechet_floor": "its floor",
    "diversity": "diversity",
    "images_per_second": "images/s",
}


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _large(value: float) -> str:
    power = min(max(len(f"{value:.0f}") - 1, 0) // 3, 6)
    return f"{value / 1000**power:.3g} {' KMGTPE'[power]}".strip()


def _plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2e}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def _data(value: float, shown: Shown) -> str:
    """A number as people read it, and as it is."""
    return f'<data value="{value!r}">{shown(value)}</data>'


def _estimate(found: Tree | None, shown: Shown) -> str:
    """A mean, with its interval under it where there is one."""
    if found is None:
        return "–"
    text = _data(found["mean"], shown)
    if found["low"] is None:
        return text
    return f"{text}<br><small>[{_data(found['low'], shown)}, {_data(found['high'], shown)}]</small>"


def _chip(recipe: Tree) -> str:
    return f'<span class=chip style="background:{recipe["colour"]}"></span>{escape(recipe["name"])}'


def _png(png: str, name: str) -> str:
    return f'<img alt="drawn by {escape(name)}" src="data:image/png;base64,{png}">'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _figures(charts: Sequence[str]) -> str:
    return "<div class=charts>" + "".join(f"<figure>{svg}</figure>" for svg in charts) + "</div>"


def _how(content: str) -> str:
    return f"<div class=how><b>How to read this</b>{content}</div>"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.6rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; color: #555; } td { white-space: nowrap; } small { color: #666; }
.wide { overflow-x: auto; margin: .8rem 0; }
.how { background: #f6f7f9; border-left: 3px solid #c9d0da; padding: .5rem .9rem; font-size: .87rem; margin: .8rem 0; }
.how p { margin: .3rem 0; }
.charts, .grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .88rem; margin-bottom: .3rem; }
svg { width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif !important; }
img { width: 100%; image-rendering: pixelated; display: block; background: #ddd; }
.strips { width: 100%; } .strips td { width: 100%; padding: .1rem 0; border: 0; } .strips th { border: 0; }
.chip { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .45em; }
.notes { color: #7a4b00; font-size: .9rem; } .hashes { font-size: .75rem; color: #666; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{equal} Runs of one seed see the data in the same order; all pictures are drawn from the same noise.</p>
{notes}
{body}
<p><small>Written by fromnoise compare. All numbers: report.json, beside this file.</small></p>
</body>
</html>
"""
