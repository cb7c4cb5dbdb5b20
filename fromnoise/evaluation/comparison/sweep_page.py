"""A sweep as one HTML page that fetches nothing: heat maps, quality against time, pictures, and every number."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from fromnoise.evaluation.comparison.report import differences_table
from fromnoise.pages.heat import Cell, against_time, heat_map
from fromnoise.pages.page import (
    count,
    data,
    estimate,
    figures,
    how,
    notes,
    page,
    percent,
    plain,
    png,
    points,
    signed,
    table,
)

Tree = dict[str, Any]

LABELS = {
    "accuracy": ("accuracy", percent),
    "frechet": ("Frechet distance", plain),
    "validation": ("validation loss", plain),
}
"""What is compared, in words, and how its numbers are shown."""


def settings_page(results: Tree) -> str:
    """The page of a sweep over settings of drawing."""
    sections = [
        ("In short", _short(results)),
        ("Quality against time", _time(results)),
        ("Heat maps", _maps(results)),
        ("Pictures on the front", _pictures(results)),
        ("All settings", _all(results)),
    ]
    samples = results["asked"]["samples"]
    intro = (
        f"<p>{count(samples)} pictures at each of {len(results['points'])} settings, of the same prompts and from the "
        f"same noise. {escape(results['judge']['about'])}</p>"
    )
    end = f"Checkpoint {results['checkpoint']}. Written by fromnoise sweep. All numbers: sweep.json, beside this file."
    return page(f"How to draw with {results['run']}", intro, sections, end)


def _cells(point: Tree) -> list[str]:
    """What one setting is, and what was found at it."""
    low, high = point["interval"]
    accuracy = "–"
    if point["accuracy"] is not None:
        least, most = point["accuracy_interval"]
        accuracy = f"{data(point['accuracy'], percent)} <small>[{data(least, percent)}, {data(most, percent)}]</small>"
    frechet = "–"
    if point["frechet"] is not None:
        frechet = f"{data(point['frechet'], plain)} <small>({data(point['frechet_floor'], plain)})</small>"
    return [
        point["sampler"],
        data(point["steps"], count),
        data(point["guidance"], plain),
        f"{data(low, plain)} to {data(high, plain)}",
        accuracy,
        frechet,
        data(point["forwards"], plain),
        data(point["seconds"], _milliseconds),
    ]


_HEAD = ["", "sampler", "steps", "guidance", "where t is", "accuracy", "Frechet (floor)", "forwards a picture", "ms"]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f}"


def _short(results: Tree) -> str:
    named = {"as trained": results["usual"], "best": results["best"], "chosen": results["chosen"]}
    rows = [[name, *_cells(results["points"][i])] for name, i in named.items()]
    by = LABELS[results["by"]][0]
    rule = (
        "accuracy at most one standard error below the best"
        if results["by"] == "accuracy"
        else "distance at most 5 % above the least"
    )
    written = (
        "It is written into sampling.yaml, by which this run is drawn from now on; flags override it"
        if results["learned"]
        else "Here no setting is right more often than by chance, so the usual one stays"
    )
    about = (
        f"<p>Best is by {by}. Chosen is the fastest setting that is as good but for chance: {rule}. {written}. "
        f"Many settings were tried on the same pictures, so the best of them looks a little better here than it is: "
        f"judge the chosen one again with another seed before you quote its number.</p>"
    )
    return table(_HEAD, rows) + how(about)


def _time(results: Tree) -> str:
    by, found = results["by"], results["points"]
    label = LABELS[by][0]

    def place(i: int) -> tuple[float, float]:
        return 1000 * found[i]["seconds"], found[i][by]

    groups: dict[str, list[tuple[float, float]]] = {}
    for i, point in enumerate(found):
        groups.setdefault(point["sampler"], []).append(place(i))
    named: dict[int, list[str]] = {}
    for name, words in (("chosen", "chosen"), ("best", "best"), ("usual", "as trained")):
        named.setdefault(results[name], []).append(words)
    marks = {" and ".join(words): place(i) for i, words in named.items()}
    svg = against_time(groups, [place(i) for i in results["front"]], marks, label, "time")
    about = (
        f"<p>Each dot is a setting; on the line lie those that no other beats in both. Time is the number of forwards "
        f"of the network for one picture times {1000 * results['seconds_a_forward']:.3g} ms, the median over all "
        f"settings on this machine ({escape(results['machine']['device'])}, {results['machine']['threads']} threads): "
        f"so what else ran there does not order them.</p>"
    )
    return figures([svg]) + how(about)


def _maps(results: Tree) -> str:
    """One map of steps by guidance for each sampler and interval."""
    by, found = results["by"], results["points"]
    label, shown = LABELS[by]
    values = [point[by] for point in found]
    panels: dict[tuple[str, str], list[Cell]] = {}
    order = sorted(range(len(found)), key=lambda i: (found[i]["guidance"], found[i]["steps"]))
    ranges = list(dict.fromkeys(tuple(point["interval"]) for point in found if point["guidance"] not in (0, 1)))
    for i in order:
        point = found[i]
        alike = point["guidance"] in (0, 1)  # guidance is nowhere applied: it belongs to every interval
        for low, high in ranges if alike and ranges else [tuple(point["interval"])]:
            cell = Cell(f"{point['guidance']:g}", str(point["steps"]), point[by], i == results["chosen"])
            panels.setdefault((point["sampler"], f"{low:g} to {high:g}"), []).append(cell)
    bounds = (min(values), max(values))
    maps = [
        heat_map(
            sorted(cells, key=lambda cell: (float(cell.row), int(cell.column))), "guidance", "steps", shown, bounds,
            title=f"{sampler}, guidance where t is {interval}", name=f"map{k}", high_is_good=by == "accuracy",
        )
        for k, ((sampler, interval), cells) in enumerate(panels.items())
    ]  # fmt: skip
    about = f"<p>{label.capitalize()}, light where it is good, all maps in one scale. Outlined: what was chosen.</p>"
    return figures(maps) + how(about)


def _pictures(results: Tree) -> str:
    rows = []
    for i in results["front"]:
        point = results["points"][i]
        low, high = point["interval"]
        words = f"{point['sampler']}, {point['steps']} steps, guidance {point['guidance']:g}, {low:g} to {high:g}"
        rows.append(f"<tr><th>{escape(words)}</th><td>{png(point['png'], words)}</td></tr>")
    prompts = ", ".join(escape(prompt) for prompt in results["prompts"])
    about = f"<p>Nothing is picked; the same noise in every row, the fastest first. Columns: {prompts}.</p>"
    return f"<table class=strips>{''.join(rows)}</table>" + how(about)


def _all(results: Tree) -> str:
    marks = {results["usual"]: "as trained", results["best"]: "best", results["chosen"]: "chosen"}
    front = set(results["front"])
    order = sorted(range(len(results["points"])), key=lambda i: results["points"][i]["seconds"])
    rows = [
        [" ".join(filter(None, ["◆" if i in front else "", marks.get(i, "")])), *_cells(results["points"][i])]
        for i in order
    ]
    return table(_HEAD, rows) + how("<p>◆ lies on the front: nothing is both faster and as good.</p>")


def fields_page(results: Tree) -> str:
    """The page of a sweep over fields of a recipe."""
    keys = [key for key in LABELS if any(_mean(side, key) is not None for side in results["sides"])]
    sections = [
        ("In short", _sides(results, keys)),
        ("Heat maps", _field_maps(results, keys)),
        ("Pictures from the same noise", _strips(results)),
    ]
    varied = "; ".join(f"{escape(key)}: {escape(', '.join(values))}" for key, values in results["fields"].items())
    seeds = results["asked"]["seeds"]
    intro = (
        f"<p>Recipe {escape(results['recipe'])}, with {varied}; {seeds} {'seed' if seeds == 1 else 'seeds'} each. Runs "
        f"of one seed see the same pictures in the same order and begin from the same noise.</p>"
        f"<p>{escape(results['judge']['about'])}</p>"
    )
    end = "Written by fromnoise sweep. All numbers: sweep.json, beside this file."
    return page(f"{results['recipe']}: what its fields do", intro + notes(results["notes"]), sections, end)


def _mean(side: Tree, key: str) -> float | None:
    found = side["summary"][key]
    return None if found is None else found["mean"]


def _sides(results: Tree, keys: Sequence[str]) -> str:
    head = ["", *(LABELS[key][0] for key in keys), "seconds trained", "parameters"]
    rows = [
        [
            escape(side["name"]),
            *(estimate(side["summary"][key], LABELS[key][1]) for key in keys),
            estimate(side["summary"]["training_seconds"], count),
            data(side["parameters"], count),
        ]
        for side in results["sides"]
    ]
    about = (
        "<p>In brackets is the 95 % interval over seeds (Student's t); that of an accuracy is never narrower than its "
        "pictures allow (Wilson).</p>"
    )
    apart = {key: (LABELS[key][0], points if key == "accuracy" else signed) for key in keys}
    return table(head, rows) + how(about) + differences_table(results["differences"], apart)


def _field_maps(results: Tree, keys: Sequence[str]) -> str:
    """A map of the last two fields for each value of those before; of a single field, one row."""
    *before, row, column = [None, *results["fields"]] if len(results["fields"]) == 1 else list(results["fields"])
    maps = []
    for key in keys:
        label, shown = LABELS[key]
        known = [side for side in results["sides"] if _mean(side, key) is not None]
        means = [side["summary"][key]["mean"] for side in known]
        good = max(means) if key == "accuracy" else min(means)
        panels: dict[str, list[Cell]] = {}
        for side, mean in zip(known, means, strict=True):
            title = ", ".join([label, *(f"{name} {side['values'][name]}" for name in before)])
            place = side["values"][row] if row else ""
            panels.setdefault(title, []).append(Cell(place, side["values"][column], mean, mean == good))
        for title, cells in panels.items():
            maps.append(
                heat_map(
                    cells, row or "", column, shown, (min(means), max(means)),
                    title=title, name=f"map{len(maps)}", high_is_good=key == "accuracy",
                )
            )  # fmt: skip
    return figures(maps) + how("<p>Means over seeds, light where they are good. Outlined: the best.</p>")


def _strips(results: Tree) -> str:
    rows = [
        f"<tr><th>{escape(side['name'])}</th><td>{png(side['runs'][0]['pictures']['png'], side['name'])}</td></tr>"
        for side in results["sides"]
    ]
    prompts = ", ".join(escape(prompt) for prompt in results["prompts"])
    return f"<table class=strips>{''.join(rows)}</table>" + how(f"<p>First seed. Columns: {prompts}.</p>")
