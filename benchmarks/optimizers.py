"""Muon beside AdamW, and modulation that blocks share beside their own: small networks trained alike, by the package's
own step.

Of each seed all have the same first weights, pictures in the same order, times and noise. Each optimizer finds its own
rate first, on a short training of a seed that is not measured: three rates, and on while the best is the last of them.
A finished training is a line of a file, and the same command again goes on after the last one. Writes a JSON record, a
plot, and the tables of docs/optimizers.md.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from pydantic import PositiveInt

from benchmarks.harness import describe_machine, ratio, run_main, take_turns
from benchmarks.optimizers_page import ROOT, shared_table, table, write
from fromnoise.cli.flags import parse
from fromnoise.conditioning.config import TextConfig
from fromnoise.core.config import Config
from fromnoise.core.files import read_lines, write_text
from fromnoise.core.line import Line, quiet
from fromnoise.data.config import PreparedConfig
from fromnoise.models.config import BackboneConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes import named
from fromnoise.space.config import LatentConfig
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.log import duration
from fromnoise.training.loop import drawing
from fromnoise.training.optim import Optimizer, schedule
from fromnoise.training.run import AdamW, Muon, Run, Training
from fromnoise.training.step import accumulate_gradients, clip_gradients

USAGE = "python -m benchmarks.optimizers [--option VALUE ...]"
DESCRIPTION = """\
Trains small networks with Muon and with AdamW, each at the rate that suits it best, for as many steps and for as many
seconds; and an MMDiT whose blocks share their modulation. The same command again goes on where it was stopped.
"""
Task = Literal["digits-dit", "latents", "digits-unet", "shapes"]
NETWORKS: dict[str, BackboneConfig] = {
    "shapes": MMDiTConfig(patch=4, width=48, depth=6, head_width=8, rope_theta=1000.0, pooled=True, absolute="sincos"),
    "digits-dit": DiTConfig(patch=4, width=64, depth=4, head_width=16),
    "digits-unet": UNetConfig(width=8, multipliers=(1, 2, 4), layers=1, attention=(2,), heads=4, groups=4),
    "latents": MMDiTConfig(patch=2, width=64, depth=4, head_width=16, rope_theta=1000.0, pooled=True),
}
CHANNELS = {"shapes": 3, "digits-dit": 1, "digits-unet": 1, "latents": 32}
TEXT = TextConfig(width=64, depth=1, heads=4)
"""Of those that read captions."""
CAPTIONS = 1000  # read to learn the vocabulary
RECIPES = {"shapes": "shapes", "digits-dit": "x0", "digits-unet": "mnist", "latents": "folder"}
"""Whose path, target and times each has."""
FIRST = {"adamw": 4e-3, "muon": 8e-3}
"""The middle one of the rates that are tried first; a search goes by factors of 2."""
LAST = 4  # rates beyond the first three, at most
SEARCHED = 1000  # seed of the search
MODULATION: Task = "shapes"
"""The task on which modulation is compared."""
TURNS = 6  # rounds in which steps are timed
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Of so many seeds, 97.5 % of Student's t: half of a 95 % interval in standard errors."""

Losses = dict[str, float]


class Settings(Config):
    """How much is trained."""

    only: tuple[Task | Literal["modulation"], ...] = (*get_args(Task), "modulation")
    """Tasks of both optimizers, and the modulations."""
    seeds: PositiveInt = 3
    """Trainings of each kind."""
    steps: PositiveInt = 200
    """Optimizer steps of each."""
    search_steps: PositiveInt = 100
    """Of a training that a rate is tried with."""
    batch: PositiveInt = 16
    """Pictures of a step."""
    scale: PositiveInt = 1
    """Times the width of the networks."""
    latents: Path = Path("prepared/emoji-64")
    """Latents that `fromnoise prepare` wrote."""
    vae: Path = Path("prepared/taef2")
    """The autoencoder that they were prepared with."""
    runs: Path = Path("runs/optimizers")
    """Directory of trainings.jsonl."""
    out: Path = ROOT
    """Directory in which benchmarks/results/optimizers.json, docs/images/optimizers.png and docs/optimizers.md are
    written."""


class Asked(NamedTuple):
    """A training."""

    task: str
    optimizer: str
    rate: float
    steps: int
    seed: int
    width: int
    """Of the network."""
    modulation: str = "own"


def network(asked: Asked) -> BackboneConfig:
    """The backbone of a training."""
    changes = {"modulation": asked.modulation} if asked.modulation != "own" else {}
    return NETWORKS[asked.task].model_copy(update=changes | {"width": asked.width})


def width_of(task: str) -> int:
    """Of a task's network, unless it is to be wider."""
    return NETWORKS[task].model_dump()["width"]


def run_of(asked: Asked, settings: Settings) -> Run:
    """The run of a training."""
    rate = asked.rate
    optimizer = Muon(lr=rate, adamw_lr=rate / 3) if asked.optimizer == "muon" else AdamW(lr=rate)
    run = named(RECIPES[asked.task])
    conditioner = TEXT if isinstance(run.model.conditioner, TextConfig) else run.model.conditioner
    model = run.model.model_copy(update={"backbone": network(asked), "conditioner": conditioner})
    training = Training(
        steps=asked.steps,
        batch=settings.batch,
        optimizer=optimizer,
        warmup=asked.steps // 10,
        decay=run.training.decay,
        seed=asked.seed,
    )
    run = run.model_copy(update={"model": model, "training": training})
    if asked.task == "latents":
        model = model.model_copy(update={"space": LatentConfig(path=settings.vae)})
        run = run.model_copy(update={"data": PreparedConfig(path=settings.latents), "model": model})
    return run


def build(trainee: Drawing) -> Pipeline:
    """A fresh model."""
    return Pipeline.build(trainee.run.model, trainee.data.captions(CAPTIONS), trainee.run.training.seed)


def trained(trainee: Drawing, advance: Callable[[int], None]) -> Losses:
    """The validation losses at the end of a training, on fixed pictures, times and noise."""
    plan: Training = trainee.run.training
    model = build(trainee)
    optimizer, ema = Optimizer(model, plan.optimizer), Ema(model, plan.ema * plan.steps)
    for step in range(plan.steps):
        accumulate_gradients(model, trainee.draw(model, step, plan.batch), 1, None)
        clip_gradients(model, plan.clip)
        optimizer.step(schedule(step, plan.steps, plan.warmup, plan.decay))
        model.zero_grad()
        ema.update(step)
        advance(step + 1)
    told: dict[str, Any] = trainee.validation(model).losses(model, ema, None)
    return {kind: told[f"validation_{kind}"] for kind in ("ema", "raw")}


class Ledger:
    """What is trained and measured, a line each; what is not there yet is done now, and stays."""

    def __init__(self, settings: Settings):
        self.settings, self.line = settings, Line()
        self.file = settings.runs / "trainings.jsonl"
        lines = read_lines(self.file)
        settings.runs.mkdir(parents=True, exist_ok=True)
        write_text(self.file, "".join(f"{json.dumps(line)}\n" for line in lines))  # less a half-written one
        self.known = {json.dumps(line["of"]): line["told"] for line in lines}

    def told(self, of: Sequence[Any], make: Callable[[], Any]) -> Any:
        """What is known of `of`, or else what `make` returns."""
        key = json.dumps([*of, self.settings.batch])
        if key not in self.known:
            self.known[key] = make()
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps({"of": json.loads(key), "told": self.known[key]}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return self.known[key]

    def asked(self, task: str, optimizer: str, rate: float, seed: int) -> Asked:
        """A training of the task's network as long as the settings say; short for a search."""
        steps = self.settings.search_steps if seed == SEARCHED else self.settings.steps
        return Asked(task, optimizer, rate, steps, seed, self.settings.scale * width_of(task))

    def trainee(self, asked: Asked) -> Drawing:
        """What trains it."""
        return drawing(run_of(asked, self.settings), self.settings.runs, quiet)

    def losses(self, asked: Asked) -> Losses:
        """Of a training."""
        what = f"{asked.task}, {asked.optimizer}, rate {asked.rate:g}, seed {asked.seed}, {asked.modulation}"

        def make() -> Losses:
            start = time.monotonic()

            def advance(step: int) -> None:
                if self.line.due:
                    left = (time.monotonic() - start) * (asked.steps / step - 1)
                    self.line.show(f"{what}: step {step:,} of {asked.steps:,}, left {duration(left)}")

            found = trained(self.trainee(asked), advance)
            self.line.say(f"{what}: {asked.steps:,} steps, loss {found['ema']:.4f} (average), {found['raw']:.4f}")
            return found

        return self.told(asked, make)

    def paces(self, asked: Mapping[str, Asked]) -> dict[str, list[float]]:
        """Seconds of steps of these trainings, in turns."""

        def make() -> dict[str, list[float]]:
            steps = {name: one_step(self.trainee(one)) for name, one in asked.items()}
            show = lambda done, rounds: self.line.show(f"timing steps: {done} of {rounds} rounds")  # noqa: E731
            return take_turns(steps, TURNS, torch.device("cpu"), show)

        return self.told(["seconds", *(network(one).model_dump() for one in asked.values()), *asked], make)


def one_step(trainee: Drawing) -> Callable[[], None]:
    """A whole step of a training, on one batch."""
    model = build(trainee)
    optimizer, ema = Optimizer(model, trainee.run.training.optimizer), Ema(model, 10.0)
    sample = trainee.draw(model, 0, trainee.run.training.batch)

    def step() -> None:
        accumulate_gradients(model, sample, 1, None)
        clip_gradients(model, 1.0)
        optimizer.step(1e-3)
        model.zero_grad()
        ema.update(0)

    return step


def search(ledger: Ledger, task: str, optimizer: str) -> dict[float, float]:
    """The loss by rate, of short trainings: on while the best is at an end."""
    first, tried = FIRST[optimizer], dict[float, float]()
    wanted = [first / 2, first, 2 * first]
    for _ in range(LAST + 1):
        for rate in wanted:
            tried[rate] = ledger.losses(ledger.asked(task, optimizer, rate, SEARCHED))["ema"]
        rate = best(tried)
        wanted = [rate / 2] if rate == min(tried) else [2 * rate] if rate == max(tried) else []
    return dict(sorted(tried.items()))


def best(tried: Mapping[float, float]) -> float:
    """The rate of the lowest loss; one that is no number is none."""
    return min(tried, key=lambda rate: tried[rate] if math.isfinite(tried[rate]) else math.inf)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The mean of some seeds with its 95 % interval (Student's t), and each."""
    mean, count = statistics.fmean(values), len(values)
    half = STUDENT[count] * statistics.stdev(values) / count**0.5 if count in STUDENT else math.nan
    told = {"mean": mean, "each": list(values)}
    return told if math.isnan(half) else told | {"low": mean - half, "high": mean + half}


def compared(ours: Sequence[Losses], theirs: Sequence[Losses]) -> dict[str, Any]:
    """Our loss over theirs, seed by seed, of averaged weights and of those as they are."""
    pairs = list(zip(ours, theirs, strict=True))
    return {kind: spread([a[kind] / b[kind] for a, b in pairs]) for kind in ("ema", "raw")}


def optimizers(ledger: Ledger, task: str, seeds: int) -> dict[str, Any]:
    """Both optimizers on a task, by the first `seeds` seeds."""
    steps = ledger.settings.steps
    tried = {name: search(ledger, task, name) for name in FIRST}
    rates = {name: best(losses) for name, losses in tried.items()}
    asked = {name: ledger.asked(task, name, rates[name], 0) for name in FIRST}
    seconds = ledger.paces(asked)
    slower = ratio(seconds["adamw"], seconds["muon"])
    asked["adamw, as many seconds"] = asked["adamw"]._replace(steps=round(steps * slower.median))
    found = {name: [ledger.losses(one._replace(seed=seed)) for seed in range(seeds)] for name, one in asked.items()}
    return {
        "parameters": parameters(asked["adamw"]),
        "search": {name: {f"{rate:g}": loss for rate, loss in losses.items()} for name, losses in tried.items()},
        "rates": rates,
        "steps": {name: one.steps for name, one in asked.items()},
        "step_seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "muon_seconds_over_adamw": slower._asdict(),
        "losses": {
            name: {kind: spread([one[kind] for one in each]) for kind in each[0]} for name, each in found.items()
        },
        "muon_over_adamw": compared(found["muon"], found["adamw"]),
        "muon_over_adamw_as_many_seconds": compared(found["muon"], found["adamw, as many seconds"]),
    }


def modulations(ledger: Ledger, seeds: int) -> dict[str, Any]:
    """Modulation of each block's own, shared, and shared in a network that is wider for it, all by Muon."""
    rate = best(search(ledger, MODULATION, "muon"))
    own = ledger.asked(MODULATION, "muon", rate, 0)
    shared, unit = own._replace(modulation="shared"), NETWORKS[MODULATION].model_dump()["head_width"]
    widths = [shared._replace(width=width) for width in range(own.width + unit, 2 * own.width, unit)]
    wider = min(widths, key=lambda one: abs(parameters(one) - parameters(own)))
    asked = {"own": own, "shared": shared, "shared, wider": wider}
    seconds = ledger.paces(asked)
    found = {name: [ledger.losses(one._replace(seed=seed)) for seed in range(seeds)] for name, one in asked.items()}
    return {
        name: {
            "width": one.width,
            "parameters": parameters(one),
            "seconds_over_own": ratio(seconds["own"], seconds[name])._asdict(),
            "losses": {kind: spread([each[kind] for each in found[name]]) for kind in ("ema", "raw")},
            "over_own": compared(found[name], found["own"]),
        }
        for name, one in asked.items()
    }


def parameters(asked: Asked) -> int:
    """How many the backbone has."""
    wide = {"shapes": TEXT.width, "latents": TEXT.width}.get(asked.task, 192)
    return sum(p.numel() for p in network(asked).build(CHANNELS[asked.task], wide).parameters())


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    if "latents" in settings.only and not settings.latents.is_dir():
        raise ValueError(f"{settings.latents} is not there; docs/emoji.md says how to prepare it, or leave out latents")
    torch.set_num_threads(1)
    ledger, machine = Ledger(settings), describe_machine()
    for seeds in range(1, settings.seeds + 1):  # so that what is stopped has measured all of some seeds
        record = {
            "command": " ".join(["python -m benchmarks.optimizers", *args]),
            "machine": machine,
            "settings": settings.model_dump(mode="json", exclude={"out", "runs", "latents", "vae"}) | {"seeds": seeds},
        }
        record["tasks"] = {task: optimizers(ledger, task, seeds) for task in NETWORKS if task in settings.only}
        if "modulation" in settings.only:
            record["modulation"] = modulations(ledger, seeds)
        write(record, settings.out)
    print(f"{table(record)}\n\n{shared_table(record)}" if "modulation" in record else table(record))


if __name__ == "__main__":
    run_main(main)
