"""What fields of a recipe do: runs that differ in them, trained from the same seeds, and compared pair by pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fromnoise.core.device import pick
from fromnoise.core.files import write_text
from fromnoise.core.line import quiet
from fromnoise.core.types import Data
from fromnoise.data.config import DataConfig
from fromnoise.evaluation.comparison.asked import Asked, FieldsAsked
from fromnoise.evaluation.comparison.compare import described, machine, trained, without_pictures
from fromnoise.evaluation.comparison.match import counted
from fromnoise.evaluation.comparison.measure import Watch, measure
from fromnoise.evaluation.comparison.place import identity, take
from fromnoise.evaluation.comparison.summary import differences, summary
from fromnoise.evaluation.comparison.sweep_page import LABELS, fields_page
from fromnoise.evaluation.judges.judge import judge_of, kind_of, prompts_of
from fromnoise.training.directory import derive
from fromnoise.training.run import Run

INCOMPARABLE = ("model.objective", "model.path", "model.space", "data")
"""Fields below which losses are measured in another way, or on other pictures."""

Tree = dict[str, Any]


class Variant(NamedTuple):
    """A recipe with some fields changed."""

    name: str  # of its directory too
    values: dict[str, str]  # by key, as they were given
    run: Run

    @property
    def identity(self) -> str:
        """As `place.identity`."""
        return identity(self.run)


def sweep_fields(
    variants: Sequence[Variant], out: Path, asked: FieldsAsked, say: Callable[[str], None], watch: Watch
) -> Path:
    """Train and judge every variant from every seed; sweep.html and sweep.json in `out`, with the runs and what was
    measured of them. The same call again goes on where it was stopped.

    Raises:
        ValueError: one line, when two variants are the same, or a training fails.
    """
    refuse_doubles(variants)
    sets: dict[str, Data] = {}

    def data_of(config: DataConfig) -> Data:
        key = config.model_dump_json(exclude={"sha256"})  # which the data themselves tell
        if key not in sets:
            sets[key] = config.build(0)
        return sets[key]

    device = pick(asked.device)
    sides = []
    for variant in variants:
        data = data_of(variant.run.data)
        run = derive(variant.run, data, quiet)
        sides.append(counted(variant.name, run, dict.fromkeys(range(asked.seeds)), data))
    say(f"{len(sides) * asked.seeds} trainings of {sides[0].run.training.steps:,} steps: {len(sides)} variants")
    take(out, [one.identity for one in variants])
    places = trained(sides, out / "runs", asked.device)
    found: dict[tuple[str, int], Tree] = {}
    looked = Asked(samples=asked.samples, seed=asked.seed, device=asked.device, guidances=(), speeds=())
    for config, group in groupby(sides, key=lambda side: side.run.data):
        names = {side.name for side in group}
        data = data_of(config)
        own = {key: place for key, place in places.items() if key[0] in names}
        found |= measure(own, out / "measured", looked, data, judge_of(kind_of(config), data), watch)

    told = []
    for variant, side in zip(variants, sides, strict=True):
        runs = [found[side.name, seed] for seed in side.runs]
        told.append(described(side) | {"values": variant.values, "runs": runs, "summary": summary(runs)})
    data = data_of(sides[0].run.data)
    judge = judge_of(kind_of(sides[0].run.data), data)
    results = {
        "recipe": variants[0].run.recipe,
        "fields": {key: list(dict.fromkeys(one.values[key] for one in variants)) for key in variants[0].values},
        "asked": asked.model_dump(mode="json"),
        "judge": {"name": judge.name, "about": judge.about},
        "machine": machine(device),
        "prompts": list(prompts_of(data)[0]),
        "notes": notes(variants, asked.seeds),
        "sides": told,
        "differences": differences(told, tuple(LABELS)),
    }
    write_text(out / "sweep.html", fields_page(results))
    write_text(out / "sweep.json", json.dumps(without_pictures(results), indent=1) + "\n")
    return out / "sweep.html"


def refuse_doubles(variants: Sequence[Variant]) -> None:
    """Find that no two variants are the same run; else ValueError in one line."""
    for i, one in enumerate(variants):
        same = next((other for other in variants[:i] if other.run == one.run), None)
        if same:
            raise ValueError(f"{same.name} and {one.name} are the same run: each value may be given once")


def notes(variants: Sequence[Variant], seeds: int) -> list[str]:
    """What a reader must know before trusting the numbers."""
    told = [
        f"Validation losses of other {key} are not measured alike: compare what the judge says."
        for key in variants[0].values
        if key.startswith(INCOMPARABLE)
    ]
    if seeds == 1:
        told.append("One seed each: another one may well turn small differences round; --seeds 3 would tell.")
    if seeds == 2:
        told.append(
            "Two seeds each: hardly any difference can be told from chance; --seeds 3 trains a third beside them."
        )
    return told
