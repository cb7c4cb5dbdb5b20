"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fromnoise.core.needs import size
from fromnoise.training.log import duration

WIDTH = 16  # of the names of lines


def table(plan: dict[str, Any]) -> str:
    """Lines of names and numbers, and under each what it is made of."""
    together = _together(plan["together"]) if "together" in plan else ()
    lines = [*_parameters(plan), *_flops(plan), *_memory(plan), *_time(plan), *together, *_disk(plan), *_derived(plan)]
    assumed = [f"{'assumed' if i == 0 else '':<{WIDTH}}{one}" for i, one in enumerate(plan["assumed"])]
    return "\n".join([_head(plan), *lines, *assumed])


def _head(plan: dict[str, Any]) -> str:
    what = f"{plan['run']} ({plan['recipe']})" if plan["run"] else plan["recipe"]
    crew = plan.get("together")
    if not crew:
        return f"{what} on {plan['device']}"
    machines = f" on {crew['machines']} machines" if crew["machines"] > 1 else ""
    shared = f", {crew['pictures_of_a_process']} pictures of a step each"
    return f"{what} by {crew['processes']} processes{machines} ({crew['parallel']}) on {plan['device']}{shared}"


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"


def _parameters(plan: dict[str, Any]) -> Iterator[str]:
    for kind, parts in plan["parameters"].items():
        if parts:
            listed = ", ".join(f"{name} {_count(count)}" for name, count in parts.items())
            yield _line(kind, f"{sum(parts.values()) / 1e6:.2f}M parameters: {listed}")


def _count(number: int) -> str:
    return f"{number / 1e6:.2f}M" if number >= 10_000 else f"{number:,}"


def _flops(plan: dict[str, Any]) -> Iterator[str]:
    flops = plan["flops"]
    rows = f" in {flops['rows']} forwards" if flops["rows"] > 1 else ""
    yield _line(
        "operations",
        f"{_big(flops['forward'])}FLOP a forward of a picture, {_big(flops['training'])}FLOP a picture of a step, "
        f"{_big(flops['picture'])}FLOP a picture drawn{rows}",
    )


def _memory(plan: dict[str, Any]) -> Iterator[str]:
    memory = plan["memory"]
    names = {"program": "program", "average": "EMA"}
    parts = ("weights", "gradients", "moments", "average", "activations", "gathered", "frozen", "program", "overhead")
    listed = ", ".join(f"{names.get(part, part)} {size(memory[part])}" for part in parts if memory.get(part))
    yield _line("memory", f"{size(memory['total'])} of {size(memory['of'])} at most: {listed}")
    yield _line("", "it fits" if memory["fits"] else f"it does not fit: {memory['remedy']}")


def _time(plan: dict[str, Any]) -> Iterator[str]:
    speed, time, seen = plan["speed"], plan["time"], plan["seen"]
    how = f"{speed['precision']}{', compiled' if speed['compiled'] else ''}"
    yield _line("speed", f"{speed['images_per_second']:,.1f} images/s in {how}, {speed['step_seconds']:.3g} s a step")
    yield _line("", speed["how"])
    seconds = time["seconds"]
    left = f"{time['steps']:,} steps" + (f" left after {time['done_steps']:,}" if time["done_steps"] else "")
    yield _line(
        "time",
        f"{duration(sum(seconds.values()))} for {left}: steps {duration(seconds['steps'])}, {time['validations']} "
        f"validations {duration(seconds['validations'])}, {time['previews']} previews {duration(seconds['previews'])}"
        + (f", the end {duration(seconds['end'])}" if seconds["end"] >= 1 else ""),
    )
    if plan["cost"] is not None:
        yield _line("cost", f"{plan['cost']:,.2f} at the price of an hour that was given")
    passes = f", {seen['epochs']:,.1f} times each of {seen['data']:,}" if seen["epochs"] else ""
    yield _line("seen", f"{seen['pictures']:,} pictures{passes}")


def _together(crew: dict[str, Any]) -> Iterator[str]:
    seconds, gathered, host, files = (crew[name] for name in ("seconds", "gathered", "host", "checkpoint"))
    yield _line(
        "sent",
        f"{size(crew['sent'])} by each process in a step, and as many received, in {seconds['communication']:.3g} s; "
        f"computing takes {seconds['compute']:.3g} s: {seconds['overlapped']:.3g} s together, "
        f"{seconds['apart']:.3g} s one after the other",
    )
    for one in crew["messages"]:
        place = f"{one['size']} processes" + (f" on {one['machines']} machines" if one["machines"] > 1 else "")
        when = ", with the update" if one["update"] else ""
        yield _line("", f"{one['kind']} among {place}: {size(one['bytes'])} in {one['count']}{when}")
    yield _line("gathered", f"{size(gathered['step'])} in a step, {size(gathered['looks'])} to validate and preview")
    yield _line(
        "main memory",
        f"{size(host['start'])} of the first process as it starts, {size(host['others'])} of each other; "
        f"{size(host['saving'])} of the first to save",
    )
    yield _line(
        "checkpoint", f"{size(files['first'])} written by the first process, {size(files['others'])} by each other"
    )
    if crew["reads"]["sample"]:
        rate, sample = crew["reads"]["second"], crew["reads"]["sample"]
        yield _line("reads", f"{size(rate)}/s by all of them, {size(sample)} a sample")
    for name, one in crew["kinds"].items():
        fits = "fits" if one["fits"] else "does not fit"
        told = f"{size(one['memory'])}, {fits}; {size(one['sent'])} sent; {one['images_per_second']:,.1f} images/s"
        yield _line(name, told)
    yield _line("", crew["advice"])


def _disk(plan: dict[str, Any]) -> Iterator[str]:
    disk = plan["disk"]
    parts = f"checkpoints {size(disk['checkpoints'])}, previews {size(disk['previews'])}"
    yield _line("disk", f"{size(disk['total'])}: {parts}")


def _derived(plan: dict[str, Any]) -> Iterator[str]:
    for i, (name, value) in enumerate(plan["derived"].items()):
        yield _line("derived" if i == 0 else "", f"{name} {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return (
            " x ".join(map(_text, value)) if all(isinstance(one, int) for one in value) else " ".join(map(_text, value))
        )
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _big(number: float) -> str:
    """Operations as people read them: 3.2 G."""
    units = ["", "k", "M", "G", "T", "P"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}"
