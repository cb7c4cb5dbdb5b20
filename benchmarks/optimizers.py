"""Muon beside AdamW, and modulation that blocks share beside their own: small networks trained alike, by the package's
own step.

Of each seed all have the same first weights, pictures in the same order, times and noise. Each optimizer finds its own
rate first, on a short training of a seed that is not measured: three rates, and on while the best is the last of them.
A finished training is a line of a file, and the same command again goes on after the last one. Writes a JSON record, a
plot, and the tables of docs/optimizers.md.
"""

from __future__ import annotations

import io
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from matplotlib.figure import Figure
from pydantic import PositiveInt

from benchmarks.harness import describe_machine, put, ratio, run_main, take_turns, write_record
from fromnoise.cli.flags import parse
from fromnoise.conditioning.config import TextConfig
from fromnoise.core.config import Config
from fromnoise.core.files import read_lines, write_bytes, write_text
from fromnoise.core.line import Line, quiet
from fromnoise.data.config import PreparedConfig
from fromnoise.models.config import BackboneConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.plots.style import BLUE, GREY, RED, sheet, styled
from fromnoise.recipes import named
from fromnoise.space.config import LatentConfig
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.log import duration
from fromnoise.training.loop import drawing
from fromnoise.training.optim import Optimizer, schedule
from fromnoise.training.run import AdamW, Muon, Run, Training
from fromnoise.training.step import accumulate_gradients, clip_gradients

ROOT = Path(__file__).parent.parent
USAGE = "python -m benchmarks.optimizers [--option VALUE ...]"
DESCRIPTION = """\
Trains small networks with Muon and with AdamW, each at the rate that suits it best, for as many steps and for as many
seconds; and an MMDiT whose blocks share their modulation. The same command again goes on where it was stopped.
"""
Task = Literal["shapes", "digits-dit", "digits-unet", "latents"]
NETWORKS: dict[str, BackboneConfig] = {
    "shapes": MMDiTConfig(patch=4, width=96, depth=4, head_width=16, rope_theta=1000.0, pooled=True, absolute="sincos"),
    "digits-dit": DiTConfig(patch=4, width=96, depth=4, head_width=32),
    "digits-unet": UNetConfig(width=16, multipliers=(1, 2, 3), layers=1, attention=(2,), heads=4, groups=8),
    "latents": MMDiTConfig(patch=2, width=96, depth=4, head_width=32, rope_theta=1000.0, pooled=True),
}
TEXT = TextConfig(width=96, depth=1, heads=3)
"""Of those that read captions."""
RECIPES = {"shapes": "shapes", "digits-dit": "x0", "digits-unet": "mnist", "latents": "folder"}
"""Whose path, target and times each has."""
NAMES = {
    "shapes": "shapes, MMDiT",
    "digits-dit": "digits, DiT",
    "digits-unet": "digits, U-Net",
    "latents": "latents of emoji, MMDiT",
}
FIRST = {"adamw": 2e-3, "muon": 4e-3}
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

    only: tuple[Task, ...] = get_args(Task)
    """Tasks."""
    seeds: PositiveInt = 3
    """Trainings of each kind."""
    steps: PositiveInt = 240
    """Optimizer steps of each."""
    search_steps: PositiveInt = 60
    """Of a training that a rate is tried with."""
    batch: PositiveInt = 16
    """Pictures of a step."""
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
    modulation: str = "own"
    width: int | None = None
    """Of the network, where it is not the task's own."""


def network(asked: Asked) -> BackboneConfig:
    """The backbone of a training."""
    changes = {"width": asked.width} if asked.width else {}
    changes |= {"modulation": asked.modulation} if asked.modulation != "own" else {}
    return NETWORKS[asked.task].model_copy(update=changes)


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


def trained(trainee: Drawing, advance: Callable[[int], None]) -> Losses:
    """The validation losses at the end of a training, on fixed pictures, times and noise."""
    plan: Training = trainee.run.training
    model = trainee.build()
    optimizer, ema = Optimizer(model, plan.optimizer), Ema(model, plan.ema * plan.steps)
    for step in range(plan.steps):
        accumulate_gradients(model, trainee.draw(model, step, plan.batch), 1, None)
        clip_gradients(model, plan.clip)
        optimizer.step(schedule(step, plan.steps, plan.warmup, plan.decay))
        model.zero_grad()
        ema.update(step)
        advance(step + 1)
    told = trainee.validation(model).losses(model, ema, None)
    return {kind: float(told[f"validation_{kind}"]) for kind in ("ema", "raw")}


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
    model = trainee.build()
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
            tried[rate] = ledger.losses(Asked(task, optimizer, rate, ledger.settings.search_steps, SEARCHED))["ema"]
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
    asked = {name: Asked(task, name, rates[name], steps, 0) for name in FIRST}
    seconds = ledger.paces(asked)
    slower = ratio(seconds["adamw"], seconds["muon"])
    asked["adamw, as many seconds"] = asked["adamw"]._replace(steps=round(steps * slower.median))
    found = {name: [ledger.losses(one._replace(seed=seed)) for seed in range(seeds)] for name, one in asked.items()}
    return {
        "parameters": parameters(ledger, asked["adamw"]),
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
    own = Asked(MODULATION, "muon", rate, ledger.settings.steps, 0)
    shared = own._replace(modulation="shared")
    size, unit = parameters(ledger, own), NETWORKS[MODULATION].model_dump()["head_width"]
    narrow = NETWORKS[MODULATION].model_dump()["width"]
    widths = [shared._replace(width=width) for width in range(narrow + unit, 2 * narrow, unit)]
    wider = min(widths, key=lambda one: abs(parameters(ledger, one) - size))
    asked = {"own": own, "shared": shared, "shared, wider": wider}
    seconds = ledger.paces(asked)
    found = {name: [ledger.losses(one._replace(seed=seed)) for seed in range(seeds)] for name, one in asked.items()}
    return {
        name: {
            "width": one.width or narrow,
            "parameters": parameters(ledger, one),
            "seconds_over_own": ratio(seconds["own"], seconds[name])._asdict(),
            "losses": {kind: spread([each[kind] for each in found[name]]) for kind in ("ema", "raw")},
            "over_own": compared(found[name], found["own"]),
        }
        for name, one in asked.items()
    }


def parameters(ledger: Ledger, asked: Asked) -> int:
    """How many a network has, text encoder included."""
    return ledger.told(
        ["parameters", asked.task, network(asked).model_dump()],
        lambda: sum(p.numel() for p in ledger.trainee(asked).build().parameters()),
    )


def table(record: Mapping[str, Any]) -> str:
    """Both optimizers, a row for each task, in Markdown."""
    head = (
        "task",
        "parameters",
        "rate of AdamW",
        "of Muon",
        "AdamW",
        "Muon",
        "ratio",
        "seconds a step",
        "at equal time",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for task, told in record["tasks"].items():
        losses = told["losses"]
        cells = [NAMES[task], f"{told['parameters'] / 1e6:.2f}M"]
        cells += [f"{told['rates'][name]:g}" for name in FIRST] + [
            f"{losses[name]['ema']['mean']:.4f}" for name in FIRST
        ]
        cells += [share(told["muon_over_adamw"]["ema"]), f"{told['muon_seconds_over_adamw']['median']:.2f}"]
        cells += [share(told["muon_over_adamw_as_many_seconds"]["ema"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(told: Mapping[str, Any]) -> str:
    """A ratio with its interval."""
    return f"{told['mean']:.3f}" + (f" ({told['low']:.3f} to {told['high']:.3f})" if "low" in told else "")


def shared_table(record: Mapping[str, Any]) -> str:
    """The modulations, a row each, in Markdown."""
    head = ("modulation", "width", "parameters", "loss", "over own", "seconds a step over own")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, told in record["modulation"].items():
        cells = [name, str(told["width"]), f"{told['parameters'] / 1e6:.2f}M", f"{told['losses']['ema']['mean']:.4f}"]
        cells += [share(told["over_own"]["ema"]), f"{told['seconds_over_own']['median']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@styled
def figure(record: Mapping[str, Any]) -> Figure:
    """Above, the search for a rate; below, what each came to: of each task a column."""
    tasks, settings = record["tasks"], record["settings"]
    drawn = sheet(
        3.1 * len(tasks) + 0.6,
        5.6,
        "Muon and AdamW, each at its own best rate",
        f"Validation loss of averaged weights. Above: by learning rate, after {settings['search_steps']} steps; below: "
        f"after {settings['steps']} steps of {settings['batch']} pictures, and of AdamW for as many seconds. A dot is "
        "a seed, a line joins trainings that began with the same weights and saw the same pictures and noise.",
    )
    axes = drawn.subplots(2, len(tasks), squeeze=False)
    for (task, told), above, below in zip(tasks.items(), *axes, strict=True):
        for name, colour in (("adamw", BLUE), ("muon", RED)):
            rates = [float(rate) for rate in told["search"][name]]
            label = "AdamW" if name == "adamw" else "Muon"
            above.plot(rates, list(told["search"][name].values()), "o-", color=colour, ms=4, label=label)
        above.set(title=NAMES[task], xscale="log", yscale="log", xlabel="learning rate")
        kinds = {"adamw": "AdamW", "muon": "Muon", "adamw, as many seconds": "AdamW,\nas long"}
        each = [told["losses"][kind]["ema"]["each"] for kind in kinds]
        for seed in zip(*each, strict=True):
            below.plot(range(3), seed, "-", color=GREY, lw=0.6)
        for place, (values, colour) in enumerate(zip(each, (BLUE, RED, BLUE), strict=True)):
            below.plot([place] * len(values), values, "o", color=colour, ms=5, mfc="none" if place == 2 else colour)
        below.set(xticks=range(3), xticklabels=kinds.values(), xlim=(-0.4, 2.4))
    axes[0, 0].set_ylabel("validation loss")
    axes[1, 0].set_ylabel("validation loss")
    axes[0, 0].legend()
    return drawn


def write(record: dict[str, Any], out: Path) -> None:
    """The record, the plot and the tables, in their places under `out`."""
    write_record(out / "benchmarks/results/optimizers.json", record)
    buffer, page = io.BytesIO(), out / "docs/optimizers.md"
    figure(record).savefig(buffer, dpi=110, format="png")
    (out / "docs/images").mkdir(parents=True, exist_ok=True)
    write_bytes(out / "docs/images/optimizers.png", buffer.getvalue())
    if not page.exists():
        write_text(page, (ROOT / "docs/optimizers.md").read_text(encoding="utf-8"))
    put(table(record), page)
    if "modulation" in record:
        put(shared_table(record), page, "modulation")


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
        if MODULATION in settings.only:
            record["modulation"] = modulations(ledger, seeds)
        record["tasks"] = {task: optimizers(ledger, task, seeds) for task in settings.only}
        write(record, settings.out)
    print(f"{table(record)}\n\n{shared_table(record)}" if "modulation" in record else table(record))


if __name__ == "__main__":
    run_main(main)
