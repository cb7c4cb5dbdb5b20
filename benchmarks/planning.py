"""What `fromnoise plan` tells beside what really happens, in turns: memory and pace of recipes. One JSON record."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which torch's optimizers import: part of the program, not of what a model adds to it
from pydantic import PositiveInt
from rich.console import Console

from benchmarks.harness import allocated, describe_machine, put, run_main, write_record
from fromnoise.cli.flags import parse
from fromnoise.cli.started import find
from fromnoise.core.config import Config
from fromnoise.core.files import read_lines
from fromnoise.core.needs import memory_of, used_memory
from fromnoise.training import loop
from fromnoise.training.estimate import measure_step
from fromnoise.training.run import Run, VAERun
from fromnoise.training.step import accumulate_gradients

RECORD = Path(__file__).parent / "results" / "planning.json"
PAGE = Path(__file__).parent.parent / "docs" / "plan.md"
USAGE = "python -m benchmarks.planning [--option VALUE ...]"
DESCRIPTION = """\
Plans recipes by `fromnoise plan`, and trains each for some steps by the package's own loop in a fresh process, by
turns: plan, training, plan, training. What was planned stands beside what happened: pictures a second, the most memory
of the process and its growth from before the model is made, validation and previews; and what is assumed of
compilation. Also writes the table of docs/plan.md. `phase5` draws in the latents of a trained runs/vae-small.
"""


class Settings(Config):
    """What is planned and trained."""

    recipes: tuple[str, ...] = ("shapes", "mnist", "sd1", "dit", "phase5", "vae-small")
    """Recipes, whose data must be there."""
    rounds: PositiveInt = 2
    """Times that each is planned, and trained."""
    steps: PositiveInt = 40
    """Steps of a training; the first quarter is left out."""
    out: Path = RECORD
    """File of the record."""
    page: Path = PAGE
    """Where its table goes."""


def planned(recipe: str) -> dict[str, Any]:
    """What `fromnoise plan` tells, and the seconds that it takes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "fromnoise.cli.main", "plan", recipe, "--json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told | {"took": time.perf_counter() - start}


def trained(recipe: str, steps: int, compiled: bool, precision: str, again: bool) -> dict[str, Any]:
    """What a training of `steps` steps takes in this fresh process. again: leave out what is measured only once."""
    run = short(find(recipe).run, steps, compiled, precision)
    found: dict[str, Any] = {}
    follow = loop.follow

    def noted(trainee: Any, directory: Path, live: Any) -> Any:
        found["before"] = used_memory()  # data are read, and there is no model yet
        state = follow(trainee, directory, live)
        found["most"] = memory_of("VmHWM")
        found["beside"] = beside(trainee, state, directory)
        if not again:
            found["alone"] = alone(trainee, state, run.training.batch)
        return state

    loop.follow = noted
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        loop.train(run, directory) if isinstance(run, Run) else loop.train_vae(run, directory)
        lines = read_lines(directory / "metrics.jsonl")
    paces = [line["step_seconds"] for line in lines if "step_seconds" in line and line["step"] > steps / 4]
    return found | {"step_seconds": statistics.median(paces)}


def short(run: Run | VAERun, steps: int, compiled: bool, precision: str) -> Any:
    """The same run for a few steps, and as the plan says that it would run."""
    asked = {"steps": steps, "log_every": 5, "compile": "on" if compiled else "off", "precision": precision}
    rare = dict.fromkeys(("save_every", "validate_every", "preview_every"), steps)
    return run.model_copy(update={"training": run.training.model_copy(update=asked | rare)})


def beside(trainee: Any, state: Any, directory: Path) -> dict[str, float]:
    """Seconds of a validation and of a preview."""
    precision = trainee.run.training.precision
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    validation, previews = trainee.validation(state.model), trainee.previews(directory / "previews")
    return {
        "validation": seconds(lambda: validation.losses(state.model, state.ema, dtype)),
        "preview": seconds(lambda: previews.write(0, state.model, state.ema, precision)),
    }


def alone(trainee: Any, state: Any, batch: int) -> dict[str, Any]:
    """An eager and a compiled step in bfloat16, by turns: seconds, and bytes that tensors take at most."""
    model, dtype = state.model, torch.bfloat16
    sample = trainee.trial(model, batch)
    with model.compiled(True):
        accumulate_gradients(model, sample, 1, dtype)
        model.zero_grad()
    ratios = []
    for _ in range(5):
        eager = sum(measure_step(trainee, model, sample, 1, dtype, 1))
        with model.compiled(True):
            ratios.append(sum(measure_step(trainee, model, sample, 1, dtype, 1)) / eager)
    eager = allocated(lambda: accumulate_gradients(model, sample, 1, dtype))
    model.zero_grad()
    with model.compiled(True):
        fused = allocated(lambda: accumulate_gradients(model, sample, 1, dtype))
    model.zero_grad()
    return {"compiled_time": statistics.median(ratios), "compiled_memory": fused / eager, "allocated": eager}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compared(plans: list[dict[str, Any]], truths: list[dict[str, Any]]) -> dict[str, Any]:
    """What was planned over what happened: the median of the rounds, and all of them."""

    def over(plan: dict[str, Any], truth: dict[str, Any]) -> dict[str, float]:
        time, memory = plan["time"], plan["memory"]
        return {
            "step_seconds": plan["speed"]["step_seconds"] / truth["step_seconds"],
            "memory": memory["total"] / truth["most"],
            "growth": (memory["total"] - memory["program"]) / (truth["most"] - truth["before"]),
            "validation": time["seconds"]["validations"] / time["validations"] / truth["beside"]["validation"],
            "preview": time["seconds"]["previews"] / time["previews"] / truth["beside"]["preview"],
        }

    rounds = [over(plan, truth) for plan, truth in zip(plans, truths, strict=True)]
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} | {"rounds": rounds}


def table(record: Mapping[str, Any]) -> str:
    """A row for each recipe, in Markdown."""
    head = ("recipe", "s a step", "memory", "growth", "validation", "preview", "compiled step", "its activations")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for recipe, told in record["recipes"].items():
        ratios = told["planned_over_happened"]
        keys = ("step_seconds", "memory", "growth", "validation", "preview")
        cells = [recipe, *(f"{ratios[key]:.2f}" for key in keys)]
        cells += [f"{told[key]:.2f}" for key in ("compiled_time", "compiled_memory")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    for recipe in settings.recipes:
        if isinstance(run := find(recipe).run, Run):
            run.model.space.check()  # a VAE that is missing is told before the others have taken their minutes
    say = Console(stderr=True).print
    machine, found = describe_machine(), {}
    for recipe in settings.recipes:
        plans: list[dict[str, Any]] = []
        truths: list[dict[str, Any]] = []
        for _ in range(settings.rounds):
            plans.append(planned(recipe))
            how = plans[0]["speed"]
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                ask = (recipe, settings.steps, how["compiled"], how["precision"], bool(truths))
                truths.append(fresh.submit(trained, *ask).result())
        ratios = compared(plans, truths)
        say(recipe, {key: round(value, 2) for key, value in ratios.items() if key != "rounds"})
        found[recipe] = {
            "planned_over_happened": ratios,
            "images_per_second": statistics.median(plan["speed"]["images_per_second"] for plan in plans),
            "plan_seconds": statistics.median(plan["took"] for plan in plans),
            "precision": how["precision"],
            "compiled": how["compiled"],
            "memory": plans[-1]["memory"],
            "most_memory": truths[-1]["most"],
            **truths[0]["alone"],
        }
        record = {
            "command": " ".join(["python -m benchmarks.planning", *args]),
            "machine": machine,
            "settings": settings.model_dump(mode="json", exclude={"out", "page"}),
            "recipes": found,
        }
        write_record(settings.out, record)  # after each, for all take long
        put(table(record), settings.page)


if __name__ == "__main__":
    run_main(main)
