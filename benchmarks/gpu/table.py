"""The record as one table, and what in it went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

UTILISATION, LEAST_UTILISATION = 0.5, 0.4
TIMES_DIFFUSERS = 2.0
Record = Mapping[str, Any]


def faults(record: Record) -> list[str]:
    """What did not hold, broke, or was cut off, a line each."""
    found = []
    for name, part in record["parts"].items():
        if part["state"] != "ended":
            found.append(f"{name}: {part['state']}")
        found += [f"{name}: {one['what']}: {one['error']}" for one in part["failures"]]
        found += [f"{name}: {one['what']} is {one['value']}" for one in part["checks"] if not one["right"]]
    return found


def table(record: Record) -> Table:
    """All that a reader looks for first; the rest is in the JSON."""
    machine = record["machine"]
    shown = Table(
        "part", "what", "measured", "wanted", title=f"{machine.get('gpu', machine['cpu'])}, torch {machine['torch']}"
    )
    tellers = {"correctness": shipped, "training": trained, "drawing": drawn, "stable": stable, "recipes": learned}
    for name, part in record["parts"].items():
        if part["checks"]:
            right = sum(one["right"] for one in part["checks"])
            shown.add_row(name, "within tolerance", f"{right} of {len(part['checks'])}", "all")
        for row in tellers[name](part):
            shown.add_row(name, *row)
        for one in part["left_out"]:
            shown.add_row(name, f"left out: {one['what']}", one["why"], "")
        if part["state"] != "ended":
            shown.add_row(name, part["state"], "", "")
        shown.add_section()
    for line in faults(record):
        shown.add_row("[red]wrong", line, "", "")
    return shown


Row = tuple[str, str, str]


def shipped(part: Record) -> Iterator[Row]:
    """The model that ships, on both."""
    told = part.get("shipped")
    if told:
        shares = ", ".join(f"{told[one]['adherence']:.0%} in {one}" for one in ("float32", "bfloat16") if one in told)
        yield f"adherence, {told['pictures']} prompts", shares, f"{told['cpu']:.0%} on the CPU"


def trained(part: Record) -> Iterator[Row]:
    """Qwen-Image's network in training."""
    if "peak" in part:
        yield f"fastest {part['precision']} product", f"{part['peak']['tflops']:.3g} TFLOP/s", ""
    for batch, told in part.get("batches", {}).items():
        used = told.get("flop_utilisation", {})
        for name, rate in told.get("images_per_second", {}).items():
            memory = told["first_calls"][name]["gib"]
            copies = 1 if name == "plain loop" else 2  # of the weights: the others average them
            held = "" if memory is None else f", {memory + copies * told['weights_gib']:.1f} GiB"
            share = f", {used[name]:.0%} of the peak" if name in used else ""
            ours = name == "fromnoise"
            wanted = f"{UTILISATION:.0%}, at least {LEAST_UTILISATION:.0%}" if ours else faster(told, name)
            yield f"batch {batch}, {name}", f"{rate:.1f} images/s{share}{held}", wanted


def faster(told: Record, name: str) -> str:
    """How many times as fast ours is."""
    if name not in told.get("times_as_fast_as", {}):
        return ""
    goal = f", wanted {TIMES_DIFFUSERS:g}" if name == "diffusers" else ""
    return f"ours is {told['times_as_fast_as'][name]['median']:.2f} times as fast{goal}"


def drawn(part: Record) -> Iterator[Row]:
    """Qwen-Image's network drawing."""
    for count, told in part.get("pictures", {}).items():
        for name, rate in told.get("images_per_second", {}).items():
            yield f"{count} at once, {name}", f"{rate:.2f} images/s", faster(told, name)


def stable(part: Record) -> Iterator[Row]:
    """Stable Diffusion's networks."""
    for work in ("training", "drawing"):
        for name, rate in part.get("unet", {}).get(work, {}).get("images_per_second", {}).items():
            yield f"U-Net {work}, {name}", f"{rate:.2f} images/s", ""
    for side, told in part.get("vae", {}).items():
        for name, rate in told.get("images_per_second", {}).items():
            yield f"VAE encodes {side} px, {name}", f"{rate:.1f} images/s", ""


def learned(part: Record) -> Iterator[Row]:
    """Recipes from nothing."""
    for name in ("shapes", "mnist"):
        told = part.get(name)
        if not told:
            continue
        waits = f"{told['images_per_second']:.0f} images/s, {told['waiting_for_data']:.0%} of it waiting for data"
        yield f"{name}, {told['steps']:,} steps in {told['train_seconds']:.0f} s", waits, ""
        if "adherence" in told:
            yield f"{name}, adherence", f"{told['adherence']['overall']:.0%}", ""
        if "accuracy" in told:
            yield f"{name}, accuracy", f"{told['accuracy']:.1%}", ""
