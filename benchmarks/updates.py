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
from torch.nn.utils import clip_grad_norm_

from benchmarks.harness import describe_machine, ratio, run_main, take_turns, write_record
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.core.line import Line, quiet
from fromnoise.recipes import named
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.loop import drawing
from fromnoise.training.optim import BETA1, Optimizer, schedule
from fromnoise.training.run import AdamW, Muon
from fromnoise.training.step import accumulate_gradients, clip_gradients, gradient_norm

RECORD = Path(__file__).parent / "results" / "updates.json"
USAGE = "python -m benchmarks.updates [--option VALUE ...]"
DESCRIPTION = """\
Times clipping, AdamW, Muon and the average on the quickstart's network and on matrices of qwen-258m's shapes, each
beside other ways to compute the same, in turns. Then trains for some steps with AdamW, rounds its moments to 8 bits,
and tells how far the next update is from what it would have been.
"""
NOTHING = 1e-9  # a share of the learning rate at which everything is computed, and weights stay about as they are
SCALED = 256  # numbers of a moment that share a scale, as in Dettmers et al. 2022 (2048 there)
EPS = 1e-8  # of AdamW

Calls = dict[str, Callable[[], object]]


class Settings(Config):
    """How much is measured."""

    rounds: PositiveInt = 40
    """Turns of each way on the small network; a tenth of them on the large one."""
    large: PositiveInt = 12
    """Blocks of the large one: 12 have the 247M parameters of those of qwen-258m."""
    steps: PositiveInt = 60
    """Steps of AdamW after which its moments are rounded."""
    out: Path = RECORD
    """File of the record."""


def matrices(depth: int) -> nn.Module:
    """Matrices and biases of `depth` blocks of qwen-258m's shapes, with gradients."""
    width = 768
    shapes = [(width, width)] * 8 + [(4 * width, width), (width, 4 * width)] * 2 + [(6 * width, width)] * 2
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(0.02 * torch.randn(shape, generator=generator)) for _ in range(depth) for shape in shapes]
    model = nn.ParameterList([one for p in weights for one in (p, nn.Parameter(torch.zeros(len(p))))])
    for p in model.parameters():
        p.grad = 1e-3 * torch.randn(p.shape, generator=generator)
    return model


def ways(model: nn.Module, optimizers: dict[str, Callable[[], object]]) -> dict[str, Calls]:
    """Of each part of an update, and of all of it, the ways to compute it; the first is ours. Nothing is clipped."""
    parameters, ema = list(model.parameters()), Ema(model, 1000.0)
    most = 2 * float(gradient_norm(model))
    first, *others = optimizers.values()
    last = others[0] if others else first

    def one_by_one() -> None:
        with torch.no_grad():
            for mean, p in zip(ema.average, parameters, strict=True):
                mean.lerp_(p, 0.001)

    def now() -> None:
        clip_gradients(model, most)
        first()
        ema.update(1000)

    def before() -> None:
        clip_grad_norm_(parameters, most)
        last()
        ema.update(1000)

    return {
        "clip": {
            "the norm, and no more where it is small": lambda: clip_gradients(model, most),
            "clip_grad_norm_, which always multiplies": lambda: clip_grad_norm_(parameters, most),
        },
        "average": {"foreach": lambda: ema.update(1000), "one by one": one_by_one},
        "optimizer": dict(optimizers),
        "update": {"now": now, "before": before},
    }


def ours(model: nn.Module, config: AdamW | Muon) -> Callable[[], object]:
    """A step of the package's optimizer."""
    optimizer = Optimizer(model, config)
    return lambda: optimizer.step(NOTHING)


def torchs(model: nn.Module, **how: bool) -> Callable[[], object]:
    """A step of PyTorch's AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=NOTHING, betas=(BETA1, 0.99), weight_decay=0.0, **how).step


def timed(ways: dict[str, Calls], rounds: int, line: Line) -> dict[str, Any]:
    """Seconds of each, and how many times as long as the first each takes."""
    told: dict[str, Any] = {}
    for part, calls in ways.items():
        seconds = take_turns(calls, rounds, torch.device("cpu"), lambda done, of: None)
        first = next(iter(seconds.values()))
        told[part] = {
            name: {
                "seconds": statistics.median(times),
                "least_seconds": min(times),
                "times_as_long": ratio(first, times)._asdict(),
            }
            for name, times in seconds.items()
        }
        line.say(f"{part}: " + ", ".join(f"{name} {1000 * one['seconds']:.2f} ms" for name, one in told[part].items()))
    return told


def in_8_bits(moment: Tensor, signed: bool) -> Tensor:
    """`moment` rounded to 8 bits, with a scale for every `SCALED` numbers: itself where it is `signed`, else its square
    root, which spans half as many decades."""
    flat = moment.flatten()
    whole = nn.functional.pad(flat, (0, -len(flat) % SCALED)).view(-1, SCALED)  # (K, 256)
    values, most = (whole, 127) if signed else (whole.sqrt(), 255)
    scale = values.abs().amax(1, keepdim=True).clamp(min=1e-38) / most  # (K, 1)
    back = (values / scale).round() * scale  # (K, 256)
    return (back if signed else back.square()).flatten()[: len(flat)].view_as(moment)


def in_16_bits(moment: Tensor, signed: bool) -> Tensor:
    """`moment` rounded to bfloat16."""
    return moment.bfloat16().float()


def spoiled(model: Any, trainee: Drawing, steps: int) -> dict[str, Any]:
    """How far the update after `steps` steps of AdamW would be from itself, were its moments rounded."""
    plan = trainee.run.training
    optimizer = Optimizer(model, AdamW(lr=plan.optimizer.adamw_lr))
    for step in range(steps):
        accumulate_gradients(model, trainee.draw(model, step, plan.batch), 1, None)
        clip_gradients(model, plan.clip)
        optimizer.step(schedule(step, plan.steps, plan.warmup, plan.decay))
        model.zero_grad()
    told = {}
    for name, rounded, size in (("8 bits", in_8_bits, 2 + 8 / SCALED), ("bfloat16", in_16_bits, 4)):
        off = whole = 0.0
        for state in optimizer.adamw.state.values():
            m, v = state["exp_avg"], state["exp_avg_sq"]
            update = m / (v.sqrt() + EPS)
            other = rounded(m, True) / (rounded(v, False).sqrt() + EPS)
            off, whole = off + float((other - update).square().sum()), whole + float(update.square().sum())
        told[name] = {"bytes_of_a_parameter": size, "relative_error": math.sqrt(off / whole)}
    return told | {"float32": {"bytes_of_a_parameter": 8, "relative_error": 0.0}}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    torch.set_num_threads(1)
    line, machine = Line(), describe_machine()
    trainee = drawing(named("shapes"), Path(), quiet)
    model = trainee.build()
    accumulate_gradients(model, trainee.draw(model, 0, trainee.run.training.batch), 1, None)
    # A decay so small that it changes no weight, and all are multiplied all the same.
    muon = {"Muon": ours(model, Muon()), "Muon that multiplies by 1": ours(model, Muon(weight_decay=1e-30))}
    quickstart = timed(ways(model, muon), settings.rounds, line)
    model.zero_grad()
    moments = spoiled(model, trainee, settings.steps)
    line.say(f"moments: {moments}")

    large = matrices(settings.large)
    adamw = {"AdamW": ours(large, AdamW())}
    many = timed(ways(large, adamw), max(3, settings.rounds // 10), line)
    kinds = {"fused": torchs(large, fused=True), "foreach": torchs(large, foreach=True)}
    many |= timed({"kinds of AdamW": kinds}, 2, line)
    record = {
        "command": " ".join(["python -m benchmarks.updates", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"out"}),
        "quickstart": {"parameters": count(model), "ways": quickstart},
        "large": {"parameters": count(large), "ways": many},
        "moments": moments,
    }
    write_record(settings.out, record)


if __name__ == "__main__":
    run_main(main)
