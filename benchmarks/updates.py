"""What of a step is not the model: clipping, the optimizer and the average, in milliseconds, each beside other ways to
compute the same; and what moments of 8 bits would save and spoil.

Contestants take turns in one process, so that a busy machine slows all of them. Writes one JSON record.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from benchmarks.harness import describe_machine, ratio, run_main, take_turns, write_record
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.core.line import Line, quiet
from fromnoise.recipes import named
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.loop import drawing
from fromnoise.training.optim import BETA1, Optimizer, schedule
from fromnoise.training.run import AdamW, Muon, Run
from fromnoise.training.step import accumulate_gradients, clip_gradients, gradient_norm

RECORD = Path(__file__).parent / "results" / "updates.json"
USAGE = "python -m benchmarks.updates [--option VALUE ...]"
DESCRIPTION = """\
Times clipping, AdamW, Muon and the average on the quickstart's network and on a set of matrices of qwen-258m's shapes,
each beside other ways to compute the same, in turns. And trains for some steps with AdamW, and rounds its moments to 8
bits: how far the next update is from what it was.
"""
QUANTISED = 256  # numbers that share a scale, as in Dettmers et al. 2022 (there 2048, of the dynamic kind)
EPS = 1e-8  # of AdamW


class Settings(Config):
    """How much is measured."""

    rounds: PositiveInt = 30
    """Turns of each way, on the small network; a tenth of them on the large set."""
    large: PositiveInt = 12
    """Blocks of the large set: 12 are the 250M parameters of qwen-258m."""
    steps: PositiveInt = 60
    """Steps of AdamW after which its moments are rounded."""
    out: Path = RECORD
    """File of the record."""


def shaped(depth: int) -> nn.Module:
    """Matrices and biases of `depth` blocks of qwen-258m's shapes, 20.6M parameters each."""
    width = 768
    shapes = [(width, width)] * 8 + [(4 * width, width), (width, 4 * width)] * 2 + [(6 * width, width)] * 2
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(0.02 * torch.randn(shape, generator=generator)) for _ in range(depth) for shape in shapes]
    return nn.ParameterList([one for p in weights for one in (p, nn.Parameter(torch.zeros(len(p))))])


def ways(model: nn.Module, optimizers: dict[str, Callable[[], Any]]) -> dict[str, dict[str, Callable[[], object]]]:
    """Of each part of an update, the ways to compute it; the first one is ours."""
    parameters = list(model.parameters())
    average = [p.detach().clone() for p in parameters]
    ema = Ema(model, 1000.0)
    norm = float(gradient_norm(model))

    def one_by_one() -> None:
        with torch.no_grad():
            for mean, p in zip(average, parameters, strict=True):
                mean.lerp_(p, 0.001)

    return {
        "clip": {
            "norm, and no more where it is small enough": lambda: clip_gradients(model, 2 * norm),
            "clip_grad_norm_, which always multiplies": lambda: nn.utils.clip_grad_norm_(parameters, 2 * norm),
            "clip_grad_norm_, one by one": lambda: nn.utils.clip_grad_norm_(parameters, 2 * norm, foreach=False),
        },
        "average": {"foreach": lambda: ema.update(1000), "one by one": one_by_one},
        "optimizer": {name: make().step for name, make in optimizers.items()},
    }


def timed(ways: dict[str, dict[str, Callable[[], object]]], rounds: int, line: Line) -> dict[str, Any]:
    """Milliseconds of each, and how many times as fast the first is as the others."""
    told: dict[str, Any] = {}
    for part, calls in ways.items():
        seconds = take_turns(calls, rounds, torch.device("cpu"), lambda done, of: None)
        ours = next(iter(seconds.values()))
        told[part] = {
            name: {"ms": 1000 * statistics.median(times), "times_as_slow": ratio(ours, times)._asdict()}
            for name, times in seconds.items()
        }
        line.say(f"{part}: " + ", ".join(f"{name} {one['ms']:.2f} ms" for name, one in told[part].items()))
    return told


class Decaying:
    """Muon that multiplies its weights by 1 - rate * decay where that is 1, as it did."""

    def __init__(self, model: nn.Module):
        # A decay that is not zero, and yet changes no weight.
        self.optimizer = Optimizer(model, Muon(weight_decay=1e-30))

    def step(self) -> None:
        self.optimizer.step(1e-9)


def adamw(model: nn.Module, **how: bool) -> Callable[[], Any]:
    return lambda: torch.optim.AdamW(model.parameters(), lr=1e-9, betas=(BETA1, 0.99), weight_decay=0.0, **how)


class Ours:
    """The package's optimizer, at a rate that moves nothing."""

    def __init__(self, model: nn.Module, config: AdamW | Muon):
        self.optimizer = Optimizer(model, config)

    def step(self) -> None:
        self.optimizer.step(1e-9)


def rounded(moment: Tensor, signed: bool) -> Tensor:
    """`moment` in 8 bits, a scale for every `QUANTISED` numbers: linear where it is `signed`, of its square root where
    it is not, which has half as many decades."""
    flat = moment.flatten()
    whole = nn.functional.pad(flat, (0, -len(flat) % QUANTISED)).view(-1, QUANTISED)  # (K, 256)
    values, most = (whole, 127) if signed else (whole.sqrt(), 255)
    scale = values.abs().amax(1, keepdim=True).clamp(min=1e-38) / most  # (K, 1)
    back = (values / scale).round() * scale  # (K, 256)
    return (back if signed else back.square()).flatten()[: len(flat)].view_as(moment)


def spoiled(model: Any, trainee: Drawing, steps: int) -> dict[str, Any]:
    """How far the update after `steps` steps of AdamW is from itself, were its moments rounded."""
    run, plan = trainee.run, trainee.run.training
    optimizer = Optimizer(model, AdamW(lr=plan.optimizer.adamw_lr))
    for step in range(steps):
        accumulate_gradients(model, trainee.draw(model, step, plan.batch), 1, None)
        clip_gradients(model, plan.clip)
        optimizer.step(schedule(step, run.training.steps, plan.warmup, plan.decay))
        model.zero_grad()
    ways: dict[str, Callable[[Tensor, bool], Tensor]] = {
        "8 bits": rounded,
        "bfloat16": lambda moment, signed: moment.bfloat16().float(),
    }
    told = {}
    for name, way in ways.items():
        off = all_of = jumps = count = 0.0
        for state in optimizer.adamw.state.values():
            m, v = state["exp_avg"], state["exp_avg_sq"]
            update = m / (v.sqrt() + EPS)
            other = way(m, True) / (way(v, False).sqrt() + EPS)
            off, all_of = off + float((other - update).square().sum()), all_of + float(update.square().sum())
            jumps, count = jumps + float((other.abs() > 10).sum()), count + update.numel()
        told[name] = {"relative_error": math.sqrt(off / all_of), "share_above_10": jumps / count}
    return told


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    torch.set_num_threads(1)
    line, machine = Line(), describe_machine()
    run: Run = named("shapes")
    trainee = drawing(run, Path(), quiet)
    model = trainee.build()
    accumulate_gradients(model, trainee.draw(model, 0, run.training.batch), 1, None)
    small = {
        "AdamW, ours": lambda: Ours(model, AdamW()),
        "AdamW, fused": adamw(model, fused=True),
        "AdamW, foreach": adamw(model, foreach=True),
        "AdamW, one by one": adamw(model, foreach=False),
    }
    muon = {
        "Muon, ours": lambda: Ours(model, Muon()),
        "Muon that always decays": lambda: Decaying(model),
    }
    told = timed(ways(model, small), settings.rounds, line)
    told["muon"] = timed({"muon": {name: make().step for name, make in muon.items()}}, settings.rounds, line)["muon"]
    told["forward and backward"] = timed(
        {"step": {"eager": lambda: accumulate_gradients(model, trainee.draw(model, 0, 32), 1, None)}}, 3, line
    )["step"]
    model.zero_grad()
    moments = spoiled(model, trainee, settings.steps)
    line.say(f"moments: {moments}")

    large = shaped(settings.large)
    for p in large.parameters():
        p.grad = 1e-3 * torch.randn_like(p)
    many = {"AdamW, fused": adamw(large, fused=True), "AdamW, foreach": adamw(large, foreach=True)}
    record = {
        "command": " ".join(["python -m benchmarks.updates", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"out"}),
        "quickstart": {"parameters": sum(p.numel() for p in model.parameters()), "ways": told},
        "moments": moments,
        "large": {
            "parameters": sum(p.numel() for p in large.parameters()),
            "ways": timed(ways(large, many), max(3, settings.rounds // 10), line),
        },
    }
    write_record(settings.out, record)


if __name__ == "__main__":
    run_main(main)
