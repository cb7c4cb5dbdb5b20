"""One network's training step and drawing, by fromnoise, by diffusers and by a bare loop: the same work, in turns.

fromnoise runs as the package runs it: precision and compilation of training are what `fromnoise.training.fast` chooses,
pictures come from `Pipeline.stream`, inside `Pipeline.compiled` and once more eager. The others run in whichever of
their usual ways is the fastest here, found by trying.

Legend: B batch, C channels, S side.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.given import batch_of, conditioned, noise_and_conditions, our_pictures
from benchmarks.harness import seconds_of, take_turns
from benchmarks.stock.rival import Rival, Way, flow_loss
from fromnoise.cli.progress import progress
from fromnoise.core.device import autocast, fast_bfloat16, has_bfloat16
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training.fast import choose
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import AdamW, Training
from fromnoise.training.step import Sample, accumulate_gradients

ADAMW = AdamW(lr=1e-4)  # low: the same batch is trained on again and again
TRIAL_STEPS = 3
OURS, OURS_EAGER, BARE = "fromnoise", "fromnoise, eager", "bare loop"
EAGER, COMPILED = "diffusers", "diffusers, compiled"
PRECISIONS = (Way(torch.bfloat16, torch.float32), Way(None, torch.float32))
HELD = (Way(torch.bfloat16, torch.float32), Way(None, torch.bfloat16), Way(None, torch.float32))

Say = Callable[[str], None]
Call = Callable[[], object]


class Work(NamedTuple):
    """How much of it is done."""

    batch: int  # pictures of an optimizer step
    planned: int  # optimizer steps that compilation must repay, for fromnoise to compile
    pictures: int  # drawn together
    steps: int  # from noise to picture
    guidance: float
    compile: bool  # draw compiled
    compile_stock: bool  # and also measure the stock class compiled


class Result(NamedTuple):
    """One kind of work of one network on one device."""

    device: str
    network: str
    stock: str
    work: str
    images: int  # of a round
    how: dict[str, str]  # of each contestant
    trials: dict[str, dict[str, float]]  # seconds of each way that a contestant was tried in
    seconds: dict[str, list[float]]  # of each contestant, round by round


class Contest:
    """Those who do the same work, and how each does it."""

    def __init__(self, device: torch.device, say: Say):
        self.device, self.say = device, say
        self.calls: dict[str, Call] = {}
        self.how: dict[str, str] = {}
        self.trials: dict[str, dict[str, float]] = {}

    def enter(self, name: str, call: Call, how: str) -> None:
        """One more."""
        self.calls[name], self.how[name] = call, how

    def fastest(self, name: str, ways: Mapping[str, tuple[Way, Call]]) -> Way:
        """The way in which `name` is the quickest, each given with a call to try; the best of three counts, after one
        that does not."""
        trials = {}
        for how, (_, call) in ways.items():
            trials[how] = min([seconds_of(call, self.device) for _ in range(4)][1:])
        self.trials[name], self.how[name] = trials, min(trials, key=lambda how: trials[how])
        return ways[self.how[name]][0]

    def enter_compiled(self, name: str, call: Call, how: str) -> None:
        """One more that is compiled at its first call, where it can be."""
        self.say(f"compiling for {name} on {self.device}")
        try:
            with warnings.catch_warnings():  # what torch leaves to eager kernels, it says at length
                warnings.simplefilter("ignore")
                spent = seconds_of(call, self.device)
        except Exception as error:  # no compiler here, or one of the many ways in which it gives up
            self.say(f"it cannot be compiled here ({type(error).__name__})")
            return
        self.enter(name, call, f"{how}, compiled in {spent:.0f} s")

    def run(self, what: str, rounds: int) -> dict[str, list[float]]:
        """Seconds of all, in turns."""
        with progress(f"{what} on {self.device}") as advance:
            return take_turns(self.calls, rounds, self.device, advance)


def gaps(
    rival: Rival, pipeline: Pipeline, stock: nn.Module, batch: int, pictures: int, guidance: float
) -> dict[str, float]:
    """How far loss and pictures of both are apart in float32, as shares."""
    way = Way(None, torch.float32)
    sample, cond = conditioned(pipeline, batch)
    told = rival.prompt(stock, cond, way)
    with torch.no_grad():
        loss = pipeline.loss(*sample).mean()
        gap = (loss - flow_loss(partial(rival.answer, stock, told=told, way=way), sample)).abs() / loss
    ours = our_pictures(pipeline, pictures, TRIAL_STEPS, guidance, "float32")
    theirs = rival.pictures(stock, *noise_and_conditions(pipeline, pictures), TRIAL_STEPS, guidance, way)
    return {"loss": gap.item(), "pictures": ((ours - theirs).abs().max() / theirs.std()).item()}


def check(rival: Rival, pipeline: Pipeline, stock: nn.Module, work: Work) -> dict[str, float]:
    """`gaps`: rounding must explain all of them, or the work is not the same."""
    apart = gaps(rival, pipeline, stock, work.batch, work.pictures, work.guidance)
    assert max(apart.values()) < 1e-4, f"not the same work: {apart}"
    return apart


def time_training(
    name: str, rival: Rival, pipeline: Pipeline, stock: nn.Module, work: Work, rounds: int, say: Say
) -> Result:
    """Forward, backward and optimizer step of one batch."""
    contest = Contest(pipeline.device, say)
    sample, cond = conditioned(pipeline, work.batch)

    def stock_step(way: Way, compile: bool) -> Call:
        model = rival.held(stock, way, compile)
        answer = partial(rival.answer, model, told=rival.prompt(stock, cond, way), way=way)
        return partial(bare_step, answer, model, Optimizer(model, ADAMW), sample)

    def bare(way: Way) -> Call:
        network = copy.deepcopy(pipeline.backbone)

        def answer(x: Tensor, t: Tensor) -> Tensor:
            with autocast(x.device, way.autocast):
                return network(x, t, cond).float()

        return partial(bare_step, answer, network, Optimizer(network, ADAMW), sample)

    precisions = able(PRECISIONS, pipeline.device)
    ways = [way._replace(last=last) for way in precisions for last in rival.layouts]
    bare_way = contest.fastest(BARE, {str(way): (way, bare(way)) for way in precisions})
    way = contest.fastest(EAGER, {str(way): (way, stock_step(way, False)) for way in ways})
    with tempfile.TemporaryDirectory() as place:
        training = Training(batch=work.batch, steps=work.planned)
        serve = partial(batch_of, pipeline)
        choices = choose(pipeline, serve, training, Path(place) / "measured.yaml", say)
    optimizer = Optimizer(pipeline, ADAMW)

    def ours() -> None:
        accumulate_gradients(pipeline, sample, 1, choices.dtype)
        optimizer.step(1.0)
        pipeline.zero_grad()

    contest.enter(OURS, ours, f"{choices.precision}{', compiled' if choices.compile else ', eager'}")
    contest.enter(EAGER, stock_step(way, False), contest.how[EAGER])
    contest.enter(BARE, bare(bare_way), contest.how[BARE])
    with pipeline.compiled(choices.compile):
        if work.compile_stock:
            contest.enter_compiled(COMPILED, stock_step(way, True), str(way))
        seconds = contest.run(f"training {name}", rounds)
    device = str(pipeline.device)
    return Result(device, name, rival.stock, "training", work.batch, contest.how, contest.trials, seconds)


def bare_step(
    answer: Callable[[Tensor, Tensor], Tensor], model: nn.Module, optimizer: Optimizer, sample: Sample
) -> None:
    """A step as a training script writes it."""
    flow_loss(answer, sample).backward()
    optimizer.step(1.0)
    model.zero_grad()


def time_sampling(
    name: str, rival: Rival, pipeline: Pipeline, stock: nn.Module, work: Work, rounds: int, say: Say
) -> Result:
    """A few pictures from noise, guided."""
    device = pipeline.device
    contest = Contest(device, say)
    given = noise_and_conditions(pipeline, work.pictures)
    precision: Precision = "bfloat16" if fast_bfloat16(device) else "float32"  # as `stream` chooses
    eager = partial(our_pictures, pipeline, work.pictures, work.steps, work.guidance, precision)

    def compiled() -> None:
        with pipeline.compiled():
            eager()

    def theirs(way: Way, compile: bool, steps: int) -> Call:
        return partial(rival.pictures, rival.held(stock, way, compile), *given, steps, work.guidance, way)

    tried = stock_ways(rival, device)
    ways = {f"{way}, {'one doubled forward' if way.doubled else 'two forwards'}": way for way in tried}
    way = contest.fastest(EAGER, {how: (way, theirs(way, False, TRIAL_STEPS)) for how, way in ways.items()})
    how = f"{precision}, as Pipeline.stream chooses"
    if work.compile:
        contest.enter_compiled(OURS, compiled, how)
    contest.enter(OURS_EAGER if OURS in contest.calls else OURS, eager, how)
    contest.enter(EAGER, theirs(way, False, work.steps), contest.how[EAGER])
    if work.compile_stock:
        contest.enter_compiled(COMPILED, theirs(way, True, work.steps), contest.how[EAGER])
    seconds = contest.run(f"drawing by {name}", rounds)
    return Result(str(device), name, rival.stock, "sampling", work.pictures, contest.how, contest.trials, seconds)


def stock_ways(rival: Rival, device: torch.device) -> Sequence[Way]:
    """The usual ways to draw with the stock class."""
    held = able(HELD, device)
    return [
        way._replace(doubled=doubled, last=last) for way in held for doubled in (True, False) for last in rival.layouts
    ]


def able(ways: Sequence[Way], device: torch.device) -> Sequence[Way]:
    """Those of `ways` that are worth trying: bfloat16 only where there is more for it than plain loops."""
    return [way for way in ways if has_bfloat16(device) or (way.autocast, way.weights) == (None, torch.float32)]
