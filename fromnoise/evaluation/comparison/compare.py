"""Recipes side by side: the same seeds, the same order of the data, the same noise to draw from, and one report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fromnoise.core.device import pick
from fromnoise.core.files import write_text
from fromnoise.core.machine import describe_machine, versions
from fromnoise.evaluation.comparison.asked import Asked
from fromnoise.evaluation.comparison.match import Contender, Entry, contenders, matched, refuse_other_data, seeded
from fromnoise.evaluation.comparison.measure import Watch, learned, measure
from fromnoise.evaluation.comparison.place import take
from fromnoise.evaluation.comparison.report import DIFFERENCES, report
from fromnoise.evaluation.comparison.summary import differences, summary
from fromnoise.evaluation.judges.judge import judge_of, kind_of, prompts_of
from fromnoise.training.checkpoint import steps_done
from fromnoise.training.directory import refuse_another
from fromnoise.training.loop import train
from fromnoise.training.run import Run


def compare(entries: Sequence[Entry], out: Path, asked: Asked, say: Callable[[str], None], watch: Watch) -> Path:
    """Train what is to be trained and measure what is not measured yet; the path of the report, its JSON beside it.

    `out` keeps it all: runs/, measured/, report.html, report.json. The same call again goes on where it was stopped.

    Raises:
        ValueError: one line, when the entries cannot be compared, or a training fails.
    """
    device = pick(asked.device)
    refuse_other_data(entries)
    data = entries[0].run.data.build(0)
    sides, equal = matched(contenders(entries, asked.seeds, data), asked.match, asked.training_steps, say)
    for entry in entries:
        if entry.directory:
            learned(entry.directory)  # what cannot be read is told before anything is trained
    for side in sides:
        say(f"{side.name}: {side.parameters:,} parameters, {side.flops:,} FLOPs a sample, {side.pictures:,} pictures")
    take(out, [one.identity for one in entries])
    places = trained(sides, out / "runs", asked.device)
    judge = judge_of(kind_of(entries[0].run.data) if asked.judge == "auto" else asked.judge, data)
    found = measure(places, out / "measured", asked, data, judge, watch)

    recipes = [described(side) | {"runs": [found[side.name, seed] for seed in side.runs]} for side in sides]
    for recipe in recipes:
        recipe["summary"] = summary(recipe["runs"])
    results = {
        "title": " against ".join(side.name for side in sides),
        "match": asked.match,
        "equal": equal,
        "notes": notes(sides),
        "asked": asked.model_dump(mode="json"),
        "data": entries[0].run.data.model_dump(mode="json"),
        "prompts": list(prompts_of(data)[0]),
        "judge": {"name": judge.name, "about": judge.about},
        "machine": machine(device),
        "recipes": recipes,
        "differences": differences(recipes, tuple(DIFFERENCES)),
    }
    write_text(out / "report.html", report(results))
    write_text(out / "report.json", json.dumps(without_pictures(results), indent=1) + "\n")
    return out / "report.html"


def trained(sides: Sequence[Contender], root: Path, device: str) -> dict[tuple[str, int], Path]:
    """The directory of every run, by name and seed; what is not there is trained, what was stopped goes on."""
    places = {}
    for seed in sorted({seed for side in sides for seed in side.runs}):
        for side in sides:
            if seed in side.runs:
                run = seeded(side.run, seed)
                if device != "auto":
                    run = run.model_copy(update={"training": run.training.model_copy(update={"device": device})})
                places[side.name, seed] = side.runs[seed] or _train(run, root / f"{side.name}-seed{seed}")
    return places


def _train(run: Run, directory: Path) -> Path:
    refuse_another(run, directory)
    if steps_done(directory / "checkpoints") < run.training.steps:
        train(run, directory)
    return directory


def described(side: Contender) -> dict[str, Any]:
    """What one side is and costs."""
    model, training = side.run.model, side.run.training
    sampling = model.sampling
    return {
        "name": side.name,
        "backbone": model.backbone.type,
        "conditioner": model.conditioner.type,
        "path": model.path.type,
        "target": model.objective.target,
        "measure": model.objective.measure,
        "sampler": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "parameters": side.parameters,
        "flops": side.flops,
        "training_flops": side.training_flops,
        "training_steps": training.steps,
        "batch": training.batch,
        "trained_on": side.pictures,
        "compute": side.compute,
        "run": side.run.model_dump(mode="json"),
    }


def notes(sides: Sequence[Contender]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    told = []
    if len({side.run.training.batch for side in sides}) > 1:
        told.append(
            "Batches differ: pictures come in the same order where the data are a list, but not in the same steps."
        )
    if len({side.run.model.conditioner.type for side in sides}) > 1:
        told.append("Conditions differ: some models are given the class, others must read it out of words.")
    if len({side.run.model.space.type for side in sides}) > 1:
        told.append(
            "Spaces differ: errors of the expected picture are measured in each one's own, and cannot be compared."
        )
    if len({frozenset(side.runs) for side in sides}) > 1:
        told.append("Seeds differ: not every run has a partner of the same seed.")
    if max(len(side.runs) for side in sides) == 1:
        told.append("One seed each: another one may well turn small differences round; --seeds 3 would tell.")
    return told


def machine(device: torch.device) -> dict[str, Any]:
    """Where speeds were measured, and by what."""
    return describe_machine(device) | versions()


def without_pictures(tree: Any) -> Any:
    """The same tree less its pictures: numbers and words."""
    if isinstance(tree, dict):
        return {key: without_pictures(value) for key, value in tree.items() if key not in ("png", "pictures")}
    return [without_pictures(value) for value in tree] if isinstance(tree, list) else tree
