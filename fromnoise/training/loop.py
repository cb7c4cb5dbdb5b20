"""The training loop. The same call again goes on from the last checkpoint: on a CPU, to the same bits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from fromnoise.core.device import busy, keep_freed_memory, peak_flops, pick
from fromnoise.core.ranks import ALONE, Ranks, joined
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Data
from fromnoise.models.vae import VAE
from fromnoise.pipeline.load import weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.pipeline.place import list_checkpoints
from fromnoise.training import checkpoint
from fromnoise.training.alone import trained_alone
from fromnoise.training.blame import find_fault
from fromnoise.training.checkpoint import Progress, State
from fromnoise.training.directory import claim, derive, refuse_another
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.environment import note_environment, refuse_unlike
from fromnoise.training.estimate import tell_needs
from fromnoise.training.fast import Choices, choose
from fromnoise.training.latents import recorded_space
from fromnoise.training.log import Live, Meter, Report, Unseen, duration
from fromnoise.training.optim import Optimizer, schedule
from fromnoise.training.origin import adapt, find_origin, unsealed
from fromnoise.training.outcomes import Outcomes
from fromnoise.training.parallel import SINGLE, Parallel, split
from fromnoise.training.prefetch import ahead, workers
from fromnoise.training.reconstruction import Reconstruction, fit
from fromnoise.training.reference import find as find_reference
from fromnoise.training.run import Run, VAERun
from fromnoise.training.saving import saver_of
from fromnoise.training.step import accumulate_gradients, clip_gradients
from fromnoise.training.stop import Stop
from fromnoise.training.trainee import Model, Sample, Trainee


def train(run: Run, directory: str | os.PathLike[str]) -> Pipeline:
    """Train `run` in `directory`, or go on with it there; the model with averaged weights, ready to draw.

    Ctrl-C and SIGTERM finish the step, save, and exit with 130 or 143. Writes run.yaml, measured.yaml, metrics.jsonl,
    environment.jsonl, checkpoints/ and previews/.

    Raises:
        ValueError: one line: a setting or the data is at fault, another run is in `directory`, a checkpoint is damaged,
            the run to begin with does not fit, the disk is full, or the loss is not finite. What was saved stays.
    """
    device = carry_out(run, Path(directory))
    return Pipeline.load(weights(Path(directory)), device)


def carry_out(run: Run, directory: Path) -> torch.device:
    """What `train` does before it loads the model; where it was trained. For who needs no more than its files: of
    processes that share out the weights, each may lack the room for all."""
    with joined(run.training.device) as ranks:
        live = live_line(run, ranks)
        return follow(drawing(run, directory, live.say, ranks), directory, live).model.device


def drawing(run: Run, directory: Path, say: Callable[[str], None], ranks: Ranks = ALONE) -> Drawing:
    """`run` with its data, and with what follows from them and from what it begins with filled in; see `train`."""
    for part in (run.model.space, run.model.conditioner):
        part.check()  # before pictures are read, which may take long
    old = find_origin(run, directory)
    data = run.data.build(run.training.seed)
    return Drawing(settled(run, old, directory, data, say), data, say, ranks)


def settled(run: Run, old: Run | None, directory: Path | None, data: Data, say: Callable[[str], None]) -> Run:
    """`run` with what follows from its data, and from `old`, the run that it begins with, filled in, and told.

    Raises:
        ValueError: one line: the data do not fit it, or the weights of `old`.
    """
    run = unsealed(run, old) if old else run
    run = derive(recorded_space(run, directory, run.start.run), data, say)
    return adapt(run, old, say) if old else run


def trainee_of(run: Run | VAERun, data: Data, say: Callable[[str], None]) -> Trainee:
    """What trains `run`, which tells all that follows from `data`."""
    return Drawing(run, data, say) if isinstance(run, Run) else Reconstruction(run, data, say)


def train_vae(run: VAERun, directory: str | os.PathLike[str]) -> VAE:
    """Train the autoencoder of `run` in `directory`, or go on with it there; the VAE with averaged weights.

    As `train`, which says what is written and raised; at the end, `directory`/vae is the VAE as diffusers saves it, for
    `model.space.path`.
    """
    with joined(run.training.device) as ranks:
        live = live_line(run, ranks)
        data = run.data.build(run.training.seed)
        state = follow(Reconstruction(fit(run, data, live.say), data, live.say, ranks), Path(directory), live)
        return state.model.load(weights(directory)).vae.eval().to(state.model.device)


def live_line(run: Run | VAERun, ranks: Ranks) -> Live:
    """The line that a user watches, which the first process writes."""
    return Live(run.training.steps) if ranks.first else Unseen(run.training.steps)


def follow(trainee: Trainee, directory: Path, live: Live) -> State:
    """Train `trainee` in `directory`, or go on with it there, to the last step."""
    run, ranks = trainee.run, trainee.ranks
    refuse_another(run, directory)
    with trained_alone(directory) if ranks.first else nullcontext():
        ranks.every()  # the first one has the directory
        refuse_unlike(run, trainee.data, ranks)
        parallel = split(ranks, run.training)
        state = start(trainee, directory / "checkpoints", live.say, parallel)
        with state.ema.raw():
            trainee.rehearse(state.model)
        if ranks.first:
            claim(run, directory)
        if state.progress.step < run.training.steps:
            go_on(trainee, directory, state, live, parallel)
        if ranks.first:
            trainee.finish(directory, state.model.device)
    live.say(f"{directory} is trained: {state.progress.step} steps in {duration(state.progress.seconds)}")
    return state


def go_on(trainee: Trainee, directory: Path, state: State, live: Live, parallel: Parallel = SINGLE) -> None:
    """Take the steps that are left, and leave `state` in a checkpoint."""
    config, root, ranks = trainee.run.training, directory / "checkpoints", parallel.ranks
    model, ema, optimizer, progress = state
    keep_freed_memory(parallel.largest_kept)
    choices = chosen(trainee, model, directory / "measured.yaml", live.say)
    validation, previews = trainee.validation(model), trainee.previews(directory / "previews")
    meter = measure(trainee, model, choices)
    reference = find_reference(trainee.run, directory, live.say)
    report = Report(directory, live, meter, progress, config, choices.batch, reference, ranks)
    if ranks.first:
        note_environment(directory, progress.step, model.device, trainee.data, ranks.size)
    make = maker(trainee, model, choices)
    samples = ahead(make, range(progress.step, config.steps), workers(model.device))
    saver = saver_of(root, config.keep, parallel)

    def refuse(step: int, losses: list[float]) -> None:
        whose = next((rank for rank, loss in enumerate(losses) if not math.isfinite(loss)), 0)
        fault = ranks.agreed(find_fault(model, make(step).to(model.device), config.accumulate, choices.dtype), whose)
        raise ValueError(not_finite(step, fault, root))

    outcomes = Outcomes(progress, model.device, ranks, refuse)

    def validate() -> None:
        report.validated(validation.losses(model, ema, choices.dtype))

    with (
        Stop() as stop,
        closing(report.metrics),
        closing(samples),
        closing(saver),
        model.compiled(choices.compile),
    ):
        rows = choices.batch // ranks.size // config.accumulate
        learner = parallel.learner(model, lambda: trainee.trial(model, rows), choices.dtype)
        if progress.step == 0:
            tell_needs(trainee, model, choices, directory, live.say, parallel)
            validate()
        for step, sample in enumerate(meter.timed(samples), progress.step):
            sample = sample.to(model.device)
            losses = accumulate_gradients(learner, sample, config.accumulate, choices.dtype, learner.synced)
            norm = clip_gradients(model, config.clip, parallel)
            outcomes.add(losses, norm)
            rate = schedule(step, config.steps, config.warmup, config.decay)
            optimizer.step(rate, outcomes.broken)
            model.zero_grad()
            ema.update(step)

            done, signal = step + 1, int(max(ranks.every(stop.signal))[0])
            if config.due(done, *config.every) or signal:
                outcomes.read()
            report.step(outcomes.norm, rate * optimizer.lr)
            if config.due(done, config.validate_every):
                validate()
            if config.due(done, config.preview_every):
                previews.write(done, model, ema, choices.precision)
                keep_freed_memory(parallel.largest_kept)  # drawing keeps all
            if config.due(done, config.save_every) or signal:
                report.metrics.sync()
                saved = saver.save(state)
                if signal:
                    saver.close()
                    live.say(f"stopped; saved {saved}; the same command goes on")
                    raise SystemExit(128 + signal)


def chosen(trainee: Trainee, model: Model, file: Path, say: Callable[[str], None]) -> Choices:
    """How it runs fastest here, kept in `file`; told."""
    sizes = len(trainee.data.sizes)
    choices = choose(model, partial(trainee.trial, model), trainee.run.training, file, say, sizes, trainee.ranks)
    if choices.compile and sizes > 1:
        say(f"pictures of {sizes} sizes: a step waits where one comes first, for it is compiled by itself")
    return choices


def start(trainee: Trainee, root: Path, say: Callable[[str], None], parallel: Parallel = SINGLE) -> State:
    """A fresh training, or the one that the last checkpoint in `root` holds."""
    training, ranks = trainee.run.training, parallel.ranks
    device = ranks.device(pick(training.device))
    if ranks.first:
        checkpoint.sweep(root)
    saved = list_checkpoints(root)
    if saved:
        model = checkpoint.load_model(saved[-1], trainee.load)
        say(f"going on from {saved[-1]}")
    else:
        model = trainee.build()
    parallel.place(model, device)
    recompute(model.blocks(), training.recompute)  # after copies of it were made, which look and never learn
    ema = Ema(model, training.ema * training.steps, parallel)
    optimizer = Optimizer(model, training.optimizer, parallel)
    progress = checkpoint.load_rest(saved[-1], ema, optimizer) if saved else Progress()
    count = sum(p.numel() for p in model.parameters())
    say(f"{count / 1e6:.2f}M parameters on {device}; weights averaged over {max(ema.length, 1):.0f} steps")
    return State(model, ema, optimizer, progress)


def maker(trainee: Trainee, model: Model, choices: Choices) -> Callable[[int], Sample]:
    """The function that makes the sample of a step, in whatever thread."""
    pinned = model.device.type == "cuda"

    def make(step: int) -> Sample:
        sample = trainee.draw(model, step, choices.batch)
        return sample.pinned() if pinned else sample

    return make


def measure(trainee: Trainee, model: Model, choices: Choices) -> Meter:
    """A meter that knows the FLOPs of a step, where all take as many and it is known how many the device can do. What
    is computed again does not count."""
    peak = peak_flops(model.device)
    if peak is None or len(trainee.data.sizes) > 1:
        return Meter(busy=partial(busy, model.device))
    sample = trainee.draw(model, 0, choices.batch).to(model.device)
    recompute(model.blocks(), False)
    with FlopCounterMode(display=False) as counter:
        accumulate_gradients(model, sample.rows(0, 1), 1, choices.dtype)
    recompute(model.blocks(), trainee.run.training.recompute)
    model.zero_grad()
    return Meter(sample.size * counter.get_total_flops(), peak, partial(busy, model.device))


def not_finite(step: int, fault: str, root: Path) -> str:
    """What to tell of a loss that is no number."""
    saved = list_checkpoints(root)
    kept = f"last good checkpoint {saved[-1]}" if saved else "no checkpoint yet"
    return (
        f"the loss is not finite at step {step}: first in {fault}; {kept}; "
        f"train in another directory with a lower training.optimizer.lr or training.clip, or in float32"
    )
