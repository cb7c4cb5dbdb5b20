"""Pictures of Qwen-Image's network: how soon one is there, and how many in a second."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.given import Given, noise_and_conditions, our_pictures, pipeline_of
from benchmarks.gpu.contest import LEAST, OURS, Call, contest, release, summary, try_out, waits_of
from benchmarks.gpu.graphs import Graphed
from benchmarks.gpu.notes import Notes
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.training import EAGER, STOCK, STOCK_COMPILED, rival_of
from benchmarks.harness import installed
from fromnoise.core.device import fast_bfloat16, pick
from fromnoise.diffusion.predict import Model, guided
from fromnoise.diffusion.sample import euler
from fromnoise.diffusion.target import TARGETS
from fromnoise.diffusion.times import schedule
from fromnoise.pipeline.pipeline import Pipeline, Precision

GRAPH, GRAPH_COMPILED = "fromnoise, eager, CUDA graph", "fromnoise, compiled, CUDA graph"
ALLOWED_GAP = {"float32": 1e-3, "bfloat16": 0.05}
"""Of the norm of the difference to eager pictures in float32, as a share of their norm."""


def measure(settings: Settings, notes: Notes) -> None:
    """One picture, then many."""
    device, s = pick(settings.device), settings
    if device.type != "cuda":
        notes.leave_out("CUDA graphs", f"this is a {device.type}")
    # All tokens real: compiled blocks would see padding that eager ones and diffusers' class are spared.
    given = Given(max(s.drawing.pictures), s.text, s.text_width, padded=False)
    pipeline = pipeline_of(s.network, s.channels, s.side, given)
    stock = None
    if installed("diffusers"):
        stock = rival_of(s).beside(pipeline)
    else:
        notes.leave_out("diffusers' class", "diffusers is not installed")
    pipeline.to(device)
    notes.put("pictures", {})
    for count in s.drawing.pictures:
        if notes.time_for(f"{count} pictures", LEAST):
            notes.attempt(f"{count} pictures", partial(compare, pipeline, stock, count, s, notes))
            release(device)


def compare(pipeline: Pipeline, stock: Any, count: int, settings: Settings, notes: Notes) -> None:
    """All ways to draw `count` pictures together."""
    s, device = settings.drawing, pipeline.device
    precision: Precision = "bfloat16" if fast_bfloat16(device) else "float32"  # as `stream` chooses
    drawn: dict[str, Tensor] = {}
    with ExitStack() as stack:
        ours = our_draws(pipeline, count, precision, settings, stack)
        draws = dict(ours)
        if stock is not None:
            draws |= stock_draws(stock, pipeline, count, precision, settings)

        def kept(name: str, draw: Callable[[], Tensor]) -> None:
            drawn[name] = draw()

        contestants: dict[str, Call] = {name: partial(kept, name, draw) for name, draw in draws.items()}
        able, firsts = try_out(contestants, device, notes)
        wanted = our_pictures(pipeline, count, s.steps, s.guidance, "float32")
        gaps = {name: ((drawn[name] - wanted).norm() / wanted.norm()).item() for name in able}
        for name in filter(able.get, ours):  # diffusers' class rounds the time to the type of its weights
            notes.check(f"{name}: {count} pictures beside float32", gaps[name], ALLOWED_GAP[precision])
        told: dict[str, Any] = {"precision": precision, "first_calls": firsts, "beside_float32": gaps}
        if able:
            seconds = contest(able, s.rounds, device, notes)
            told |= summary(seconds, count, OURS if OURS in able else EAGER)
            told["waits"] = notes.attempt("waits", partial(waits_of, able[EAGER], device)) if EAGER in able else None
    notes.put("pictures", notes.found["pictures"] | {str(count): told})


def our_draws(
    pipeline: Pipeline, count: int, precision: Precision, settings: Settings, stack: ExitStack
) -> dict[str, Callable[[], Tensor]]:
    """fromnoise's ways; what runs compiled has a copy of its own, and does so until `stack` ends."""
    s, on_gpu = settings.drawing, pipeline.device.type == "cuda"
    asked = count, s.steps, s.guidance
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    draws: dict[str, Callable[[], Tensor]] = {EAGER: partial(our_pictures, pipeline, *asked, precision)}
    if on_gpu:
        draws[GRAPH] = partial(pictures_by, Graphed(pipeline.network(dtype)), pipeline, *asked)
    if settings.compile:
        quick = copy.deepcopy(pipeline)
        stack.enter_context(quick.compiled())
        draws[OURS] = partial(our_pictures, quick, *asked, precision)
        if on_gpu:
            draws[GRAPH_COMPILED] = partial(
                pictures_by, Graphed(quick.network(dtype)), quick, count, s.steps, s.guidance
            )
    return draws


@torch.no_grad()
def pictures_by(network: Model, pipeline: Pipeline, count: int, steps: int, guidance: float) -> Tensor:
    """What `our_pictures` draws, by `network` in place of the pipeline's own: (B, C, S, S)."""
    noise, cond, null = noise_and_conditions(pipeline, count)
    path, target = pipeline.config.path, TARGETS[pipeline.config.objective.target]
    predict = guided(network, cond, null, guidance, (0.0, 1.0), path=path, target=target)
    times = schedule(steps)  # (N + 1,)
    return deque(euler(predict, noise, times, path, lambda: noise), maxlen=1)[0].x


def stock_draws(
    stock: Any, pipeline: Pipeline, count: int, precision: Precision, settings: Settings
) -> dict[str, Callable[[], Tensor]]:
    """The loop of diffusers' pipeline, its weights in `precision`, guided by one doubled forward."""
    from benchmarks.stock.rival import Way

    way = Way(None, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    rival, given, s = rival_of(settings), noise_and_conditions(pipeline, count), settings.drawing

    def draw(compile: bool) -> Callable[[], Tensor]:
        model = nn.Module.to(rival.held(stock, way, compile), pipeline.device)
        return partial(rival.pictures, model, *given, s.steps, s.guidance, way)

    return {STOCK: draw(False)} | ({STOCK_COMPILED: draw(True)} if settings.compile else {})
