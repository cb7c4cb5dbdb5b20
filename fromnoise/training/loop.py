"""The training loop. The same call again goes on from the last checkpoint: on a CPU, to the same bits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from fromnoise.core.device import peak_flops, pick
from fromnoise.core.types import Data
from fromnoise.data.prepared import PreparedData
from fromnoise.pipeline.load import weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import checkpoint
from fromnoise.training.blame import find_fault
from fromnoise.training.checkpoint import Progress, State
from fromnoise.training.directory import alone, claim, derive, refuse_another
from fromnoise.training.ema import Ema
from fromnoise.training.fast import Choices, choose
from fromnoise.training.latents import recorded_space
from fromnoise.training.log import Live, Meter, Report, duration
from fromnoise.training.optim import Optimizer, schedule
from fromnoise.training.prefetch import ahead
from fromnoise.training.prepared import agree
from fromnoise.training.preview import Previews
from fromnoise.training.run import Run
from fromnoise.training.step import Sample, accumulate_gradients, clip_gradients, draw, generator_of
from fromnoise.training.stop import Stop
from fromnoise.training.validation import Validation

CAPTIONS = 10_000  # read to learn the vocabulary


def train(run: Run, directory: str | os.PathLike[str]) -> Pipeline:
    """Train `run` in `directory`, or go on with it there; the model with averaged weights, ready to draw.

    Ctrl-C and SIGTERM finish the step, save, and exit with 130 or 143. Writes run.yaml, measured.yaml, metrics.jsonl,
    checkpoints/ and previews/.

    Raises:
        ValueError: one line: a setting or the data is at fault, another run is in `directory`, a checkpoint is damaged,
            the disk is full, or the loss is not finite. What was saved before stays.
    """
    directory, live = Path(directory), Live(run.training.steps)
    run.model.space.check()  # before pictures are read, which may take long
    data = run.data.build(run.training.seed)
    run = derive(recorded_space(run, directory), data, live.say)
    refuse_another(run, directory)
    with alone(directory):
        state = start(run, data, directory / "checkpoints", live)
        previews = Previews(directory / "previews", data, run.training.previews)
        rehearse(state.pipeline, data, previews)
        claim(run, directory)
        if state.progress.step < run.training.steps:
            go_on(run, directory, data, state, previews, live)
    live.say(f"{directory} is trained: {state.progress.step} steps in {duration(state.progress.seconds)}")
    return Pipeline.load(weights(directory), state.pipeline.device)


def rehearse(pipeline: Pipeline, data: Data, previews: Previews) -> None:
    """Find what would stop a training later, before it is given a directory.

    Raises:
        ValueError: one line: labels that are no classes of the model, previews that cannot be drawn, pictures whose
            sides do not fit the model.
    """
    for height, width in data.sizes:
        if height % pipeline.multiple or width % pipeline.multiple:
            raise ValueError(
                f"pictures of {height}x{width} pixels (height x width) do not fit the model, which takes multiples of "
                f"{pipeline.multiple}: set data.multiple to one"
            )
    if isinstance(data, PreparedData):
        agree(pipeline, data)
    pipeline.conditioner.encode([""] * data.classes, torch.arange(data.classes))
    pipeline.stream(previews.prompts, labels=previews.labels)  # refuses at once what it cannot draw
    with torch.no_grad():
        pipeline.loss(*draw(pipeline, data.validation(1), generator_of(0, 0)).to(pipeline.device))


def go_on(run: Run, directory: Path, data: Data, state: State, previews: Previews, live: Live) -> None:
    """Take the steps that are left, and leave `state` in a checkpoint."""
    config, root = run.training, directory / "checkpoints"
    pipeline, ema, optimizer, progress = state
    sizes = len(data.sizes)
    # Measured on pictures to validate, of which none to train on is larger, so that what fits now always fits.
    choices = choose(pipeline, data.validation, config, directory / "measured.yaml", live.say, sizes)
    if choices.compile and sizes > 1:
        live.say(f"pictures of {sizes} sizes: a step waits where one comes first, for it is compiled by itself")
    validation = Validation(pipeline, data)
    meter = measure(pipeline, data, choices, config.accumulate)
    report = Report(directory, live, meter, progress, config, choices.batch)
    samples = ahead(maker(run, pipeline, data, choices), range(progress.step, config.steps), workers(pipeline))

    with Stop() as stop, closing(report.metrics), closing(samples), pipeline.compiled(choices.compile):
        if progress.step == 0:
            report.metrics.write(0, validation.losses(pipeline, ema, choices.dtype))
        for step, sample in enumerate(meter.timed(samples), progress.step):
            sample = sample.to(pipeline.device)
            loss = accumulate_gradients(pipeline, sample, config.accumulate, choices.dtype).mean()
            norm = clip_gradients(pipeline, config.clip)
            if not math.isfinite(loss.item() + norm.item()):
                raise ValueError(not_finite(step, find_fault(pipeline, sample, choices.dtype), root))
            rate = schedule(step, config.steps, config.warmup, config.decay)
            optimizer.step(rate)
            pipeline.zero_grad()
            ema.update(step)

            done = report.step(loss.item(), norm.item(), rate * optimizer.lr)
            if due(done, config.validate_every, config.steps):
                report.metrics.write(done, validation.losses(pipeline, ema, choices.dtype))
            if due(done, config.preview_every, config.steps):
                previews.write(done, pipeline, ema, choices.precision)
            if due(done, config.save_every, config.steps) or stop.signal:
                report.metrics.sync()
                saved = checkpoint.save(root, state, config.keep)
                if stop.signal:
                    live.say(f"stopped; saved {saved}; the same command goes on")
                    raise SystemExit(128 + stop.signal)


def due(step: int, every: int, steps: int) -> bool:
    """Whether what comes every so many steps, and at the end, comes after this step."""
    return step % every == 0 or step == steps


def start(run: Run, data: Data, root: Path, live: Live) -> State:
    """A fresh training, or the one that the last checkpoint in `root` holds."""
    device = pick(run.training.device)
    checkpoint.sweep(root)
    saved = checkpoint.list_checkpoints(root)
    if saved:
        pipeline = checkpoint.load_pipeline(saved[-1])
        live.say(f"going on from {saved[-1]}")
    else:
        captions = data.captions(CAPTIONS)
        pipeline = Pipeline.build(run.model, captions, run.training.seed)
        if notice := pipeline.conditioner.notice(captions):
            live.say(f"captions: {notice}")
    if pipeline.space.notice:
        live.say(pipeline.space.notice)
    pipeline.to(device)
    ema = Ema(pipeline, run.training.ema * run.training.steps)
    optimizer = Optimizer(pipeline, run.training.optimizer)
    progress = checkpoint.load_rest(saved[-1], ema, optimizer) if saved else Progress()
    count = sum(p.numel() for p in pipeline.parameters())
    live.say(f"{count / 1e6:.2f}M parameters on {device}; weights averaged over {max(ema.length, 1):.0f} steps")
    return State(pipeline, ema, optimizer, progress)


def maker(run: Run, pipeline: Pipeline, data: Data, choices: Choices) -> Callable[[int], Sample]:
    """The function that makes the sample of a step, in whatever thread."""
    pinned = pipeline.device.type == "cuda"

    def make(step: int) -> Sample:
        sample = draw(pipeline, data.train(step, choices.batch), generator_of(run.training.seed, step))
        return sample.pinned() if pinned else sample

    return make


def workers(pipeline: Pipeline) -> int:
    """Threads that make samples: one where they share the cores with the training itself."""
    return 1 if pipeline.device.type == "cpu" else min(8, os.cpu_count() or 1)


def measure(pipeline: Pipeline, data: Data, choices: Choices, parts: int) -> Meter:
    """A meter that knows the FLOPs of a step, where all take as many and it is known how many the device can do."""
    peak = peak_flops(pipeline.device)
    if peak is None or len(data.sizes) > 1:
        return Meter()
    sample = draw(pipeline, data.train(0, choices.batch), generator_of(0, 0)).to(pipeline.device)
    with FlopCounterMode(display=False) as counter:
        accumulate_gradients(pipeline, sample, parts, choices.dtype)
    pipeline.zero_grad()
    return Meter(counter.get_total_flops(), peak)


def not_finite(step: int, fault: str, root: Path) -> str:
    """What to tell of a loss that is no number."""
    saved = checkpoint.list_checkpoints(root)
    kept = f"last good checkpoint {saved[-1]}" if saved else "no checkpoint yet"
    return (
        f"the loss is not finite at step {step}: first in {fault}; {kept}; "
        f"train in another directory with a lower training.optimizer.lr or training.clip, or in float32"
    )
