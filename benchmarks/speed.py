"""Training and sampling speed of fromnoise's MMDiT beside diffusers' `QwenImageTransformer2DModel`: `make bench`.

Both have one size, the same weights, pictures, noise and text tokens, and are seen to give the same loss and the same
pictures before they are timed, in turns. fromnoise runs as the package runs it: precision and compilation of training
are what `fromnoise.training.fast` chooses, pictures come from `Pipeline.stream`, inside `Pipeline.compiled` and once
more eager. The stock class runs as its users run it: the loss, the sampling loop and the scheduler of diffusers' own
scripts, in whichever of their usual ways is the fastest here, found by trying; and once more compiled.

Legend: B batch, C channels, S side, L text tokens, D width.
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import QwenImageTransformer2DModel
from pydantic import NonNegativeFloat, PositiveInt
from rich.console import Console
from rich.table import Table

from benchmarks.given import Given, noise_and_conditions, our_pictures, pipeline_of, random_sample, sample_of
from benchmarks.harness import describe_machine, ratio, run_main, seconds_of, take_turns, write_record
from benchmarks.stock import Prompt, Way, gaps, held, stock_loss, stock_of, stock_pictures
from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.core.config import Config
from fromnoise.core.device import fast_bfloat16
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.fast import choose
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import AdamW, Training
from fromnoise.training.step import accumulate_gradients

TARGETS = {"training": 1.5, "sampling": 2.0}
"""How many times as fast as the stock class this should be."""
CHANNELS = 3
ADAMW = AdamW(lr=1e-4)  # low: the same batch is trained on again and again
TRIAL_STEPS = 3
OURS, OURS_EAGER, EAGER, COMPILED = "fromnoise", "fromnoise, eager", "diffusers", "diffusers, compiled"
RESULTS = Path(__file__).parent / "results" / "speed.json"
USAGE = "python -m benchmarks.speed [--option VALUE ...]"
DESCRIPTION = """\
Measures training and sampling beside diffusers' QwenImageTransformer2DModel of the same size, on the CPU and, where
there is one, on the GPU; prints a table and writes everything measured as JSON.
"""

Say = Callable[[str], None]


class Settings(Config):
    """What is measured."""

    width: PositiveInt = 192
    """Width of both streams."""
    depth: PositiveInt = 6
    """Blocks."""
    head_width: PositiveInt = 64
    """Width of an attention head."""
    patch: PositiveInt = 4
    """Side of a patch, in pixels."""
    side: PositiveInt = 32
    """Side of a picture, in pixels."""
    text: PositiveInt = 16
    """Text tokens; how many of them are real differs from picture to picture."""
    batch: PositiveInt = 64
    """Pictures of an optimizer step."""
    pictures: PositiveInt = 16
    """Pictures drawn together."""
    steps: PositiveInt = 28
    """Euler steps from noise to picture."""
    guidance: NonNegativeFloat = 4.0
    """Classifier-free guidance scale."""
    training_rounds: PositiveInt = 15
    """Times that each takes one optimizer step, in turns."""
    sampling_rounds: PositiveInt = 9
    """Times that each draws its pictures, in turns."""
    planned: PositiveInt = 2000
    """Steps of the training that compilation must repay, for fromnoise to compile."""
    compile: bool = True
    """Sample compiled, and also measure the stock class compiled."""
    out: Path = RESULTS
    """File to write."""


class Result(NamedTuple):
    """One kind of work on one device."""

    device: str
    work: str
    images: int  # of a round
    how: dict[str, str]  # of each contestant
    trials: dict[str, float]  # seconds of each way that the stock class was tried in
    seconds: dict[str, list[float]]  # of each contestant, round by round


def build(settings: Settings, device: torch.device) -> tuple[Pipeline, QwenImageTransformer2DModel]:
    """fromnoise's pipeline and the stock class, with the same weights."""
    s = settings
    backbone = MMDiTConfig(width=s.width, depth=s.depth, head_width=s.head_width, patch=s.patch)
    pipeline = pipeline_of(backbone, CHANNELS, s.side, Given(max(s.batch, s.pictures), s.text, s.width))
    return pipeline.to(device), stock_of(pipeline).to(device)  # type: ignore[arg-type]  # `to` is decorated without self


def check(pipeline: Pipeline, stock: QwenImageTransformer2DModel, settings: Settings) -> dict[str, float]:
    """How far loss and pictures are apart in float32: rounding must explain all of it, or the work is not the same."""
    apart = gaps(pipeline, stock, settings)
    assert max(apart.values()) < 1e-4, f"not the same work: {apart}"
    return apart


def time_training(pipeline: Pipeline, stock: QwenImageTransformer2DModel, settings: Settings, say: Say) -> Result:
    """Forward, backward and optimizer step of one batch."""
    device = pipeline.device
    with tempfile.TemporaryDirectory() as place:
        training = Training(batch=settings.batch, steps=settings.planned)
        measured = Path(place) / "measured.yaml"
        choices = choose(pipeline, partial(random_sample, pipeline, settings), training, measured, say)
    sample, cond = sample_of(pipeline, settings)

    def ours(optimizer: Optimizer) -> None:
        accumulate_gradients(pipeline, sample, 1, choices.dtype)
        optimizer.step(1.0)
        pipeline.zero_grad()

    def theirs(model: QwenImageTransformer2DModel, optimizer: Optimizer, prompt: Prompt, way: Way) -> None:
        stock_loss(model, sample, prompt, way).backward()
        optimizer.step(1.0)
        model.zero_grad()

    def contestant(way: Way, compile: bool) -> Callable[[], None]:
        model = held(stock, way, compile)
        return partial(theirs, model, Optimizer(model, ADAMW), Prompt.of(cond, way), way)

    ways = [Way(torch.bfloat16, torch.float32, True), Way(None, torch.float32, True)]
    way, trials = fastest({way: str(way) for way in ways}, lambda way: quickest(contestant(way, False), device))
    contestants = {OURS: partial(ours, Optimizer(pipeline, ADAMW)), EAGER: contestant(way, False)}
    how = {OURS: f"{choices.precision}{', compiled' if choices.compile else ', eager'}", EAGER: str(way)}
    with pipeline.compiled(choices.compile):
        if settings.compile:
            add_compiled(contestants, how, contestant(way, True), device, say)
        with progress(f"training on {device}") as advance:
            seconds = take_turns(contestants, settings.training_rounds, device, advance)
    return Result(str(device), "training", settings.batch, how, trials, seconds)


def time_sampling(pipeline: Pipeline, stock: QwenImageTransformer2DModel, settings: Settings, say: Say) -> Result:
    """A few pictures from noise, guided."""
    device, steps = pipeline.device, settings.steps
    given = noise_and_conditions(pipeline, settings)
    precision: Precision = "bfloat16" if fast_bfloat16(device) else "float32"  # as `stream` chooses

    def contestant(way: Way, compile: bool, steps: int) -> Callable[[], object]:
        return partial(stock_pictures, held(stock, way, compile), *given, steps, settings.guidance, way)

    precisions = [(torch.bfloat16, torch.float32), (None, torch.bfloat16), (None, torch.float32)]
    ways = [Way(dtype, weights, doubled) for dtype, weights in precisions for doubled in (True, False)]
    names = {way: f"{way}, {'one doubled forward' if way.doubled else 'two forwards'}" for way in ways}
    way, trials = fastest(names, lambda way: quickest(contestant(way, False, TRIAL_STEPS), device))
    eager = partial(our_pictures, pipeline, settings, steps, precision)

    def compiled() -> None:
        with pipeline.compiled():
            eager()

    contestants: dict[str, Callable[[], object]] = {OURS: eager, EAGER: contestant(way, False, steps)}
    how = {OURS: f"{precision}, as Pipeline.stream chooses", EAGER: names[way]}
    if settings.compile:
        say(f"compiling on {device}")
        spent = seconds_of(compiled, device)
        contestants = {OURS: compiled, OURS_EAGER: eager, EAGER: contestants[EAGER]}
        how = {OURS: f"{how[OURS]}, blocks compiled in {spent:.0f} s", OURS_EAGER: how[OURS], EAGER: how[EAGER]}
        add_compiled(contestants, how, contestant(way, True, steps), device, say)
    with progress(f"sampling on {device}") as advance:
        seconds = take_turns(contestants, settings.sampling_rounds, device, advance)
    return Result(str(device), "sampling", settings.pictures, how, trials, seconds)


def fastest(names: dict[Way, str], seconds: Callable[[Way], float]) -> tuple[Way, dict[str, float]]:
    """The way that takes the least time, and what each took."""
    trials = {way: seconds(way) for way in names}
    return min(trials, key=lambda way: trials[way]), {names[way]: spent for way, spent in trials.items()}


def quickest(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: the best of three, after one that does not count."""
    return min([seconds_of(call, device) for _ in range(4)][1:])


def add_compiled(
    contestants: dict[str, Callable[[], object]],
    how: dict[str, str],
    call: Callable[[], object],
    device: torch.device,
    say: Say,
) -> None:
    """Let the stock class run compiled too, where it can be compiled."""
    say(f"compiling the stock class on {device}")
    try:
        with (
            warnings.catch_warnings()
        ):  # its rotation in complex numbers is left to eager kernels: torch says so at length
            warnings.simplefilter("ignore")
            spent = seconds_of(call, device)
    except Exception as error:  # no compiler here, or one of the many ways in which it gives up
        say(f"it cannot be compiled here ({type(error).__name__})")
        return
    contestants[COMPILED], how[COMPILED] = call, f"{how[EAGER]}, blocks compiled in {spent:.0f} s"


def summary(result: Result) -> dict[str, object]:
    """A result with what follows from it, for the record."""
    ratios = {name: ratio(result.seconds[OURS], s) for name, s in result.seconds.items() if name != OURS}
    return result._asdict() | {
        "images_per_second": {name: result.images / statistics.median(s) for name, s in result.seconds.items()},
        "times_as_fast_as": {name: found._asdict() for name, found in ratios.items()},
        "target": TARGETS[result.work],
        "reached": ratios[EAGER].median >= TARGETS[result.work],
    }


def show(results: Sequence[Result]) -> Table:
    """The results as a table."""
    table = Table("work", "on", "who", "how", "images/s", "fromnoise is faster by")
    for result in results:
        for name, seconds in result.seconds.items():
            found = ratio(result.seconds[OURS], seconds)
            times = f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})" if name != OURS else ""
            goal = f", wanted {TARGETS[result.work]}" if name == EAGER else ""
            speed = f"{result.images / statistics.median(seconds):.1f}"
            table.add_row(result.work, result.device, name, result.how[name], speed, times + goal)
        table.add_section()
    return table


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    console, machine, results = Console(stderr=True), describe_machine(), list[Result]()
    gaps: dict[str, dict[str, float]] = {}
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        pipeline, stock = build(settings, torch.device(device))
        gaps[device] = check(pipeline, stock, settings)
        for work in (time_sampling, time_training):
            results.append(work(pipeline, stock, settings, console.print))
    record = {
        "command": " ".join(["python -m benchmarks.speed", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"out"}),
        "relative_difference_in_float32": gaps,
        "results": [summary(result) for result in results],
    }
    write_record(settings.out, record)
    Console().print(show(results))


if __name__ == "__main__":
    run_main(main)
