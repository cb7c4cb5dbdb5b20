"""Optimizer steps of Qwen-Image's network on latents: images/s, share of the device's peak, memory.

Legend: N picture tokens, L text tokens, D width, E width of a text token, p patch side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.given import Given, conditioned, pipeline_of
from benchmarks.gpu.contest import GIB, LEAST, OURS, Call, contest, release, summary, try_out, waits_of
from benchmarks.gpu.notes import Notes
from benchmarks.gpu.settings import Settings
from benchmarks.harness import installed, seconds_of, take_turns
from fromnoise.core.device import autocast, pick
from fromnoise.core.ranks import ALONE
from fromnoise.core.types import Cond
from fromnoise.evaluation.cost import training_flops
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.checkpoint import Progress
from fromnoise.training.ema import Ema
from fromnoise.training.fast import dtype_of, fast_precision
from fromnoise.training.optim import Optimizer
from fromnoise.training.outcomes import Outcomes
from fromnoise.training.run import AdamW
from fromnoise.training.run import Training as Plan
from fromnoise.training.step import Sample, accumulate_gradients, clip_gradients

if TYPE_CHECKING:
    from benchmarks.stock.rival import Rival

ADAMW = AdamW(lr=1e-4)  # low: the same batch is trained on again and again
EAGER, READ, PLAIN = "fromnoise, eager", "fromnoise, loss read every step", "plain loop"
STOCK, STOCK_COMPILED = "diffusers", "diffusers, compiled"
ALLOWED_COUNT, ALLOWED_GAP = 0.01, 1e-4
TIME_FEATURES = 256
PROFILED = 15  # kernels that are told
REPEATS = 8  # matrix products of a turn
ATTENTION_BATCH = 64
CHECKED = 2  # pictures by which both classes are seen to do the same


def measure(settings: Settings, notes: Notes) -> None:
    """Peak, operations, then a contest at every batch."""
    device = pick(settings.device)
    notes.put("precision", fast_precision(device, Plan()))
    peak = notes.attempt("peak", partial(peak_of, settings, device, notes)) or 0.0
    flops = notes.attempt("operations", partial(operations, settings, device, notes)) or 0
    notes.attempt("attention", partial(attention_kernels, settings, device, notes))
    if not installed("diffusers"):
        notes.leave_out("diffusers' class", "diffusers is not installed")
    notes.put("batches", {})
    for batch in settings.training.batches:
        if notes.time_for(f"batch {batch}", LEAST):
            notes.attempt(f"batch {batch}", partial(compare, settings, batch, device, flops, peak, notes))
            release(device)


def peak_of(settings: Settings, device: torch.device, notes: Notes) -> float:
    """FLOP/s of the fastest square product in what steps run in, of numbers by chance: zeros run faster than data."""
    dtype = dtype_of(fast_precision(device, Plan())) or torch.float32
    calls: dict[str, Call] = {}
    for side in settings.training.products:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        calls[str(side)] = partial(multiply, a, b)
    seconds = take_turns(calls, 3, device, lambda done, total: None)
    rates = {side: REPEATS * 2 * int(side) ** 3 / min(spent) for side, spent in seconds.items()}
    best = max(rates.values())
    notes.put("peak", {"tflops": best / 1e12, "by_side": {side: rate / 1e12 for side, rate in rates.items()}})
    return best


def multiply(a: Tensor, b: Tensor) -> None:
    for _ in range(REPEATS):
        torch.mm(a, b)


def by_hand(c: MMDiTConfig, channels: int, side: int, text: int, text_width: int) -> int:
    """Operations of a forward and backward of one picture, two for each multiplication with addition.

    A product of (n, i) and (i, o) takes 2 n i o forwards, and twice that backwards: once for the weights, once for
    what it was given. Pictures and times ask for no gradient, so that the second is missing where they come in.
    """
    p, d = c.patch, c.width
    n, inside = (side // p) ** 2, channels * p**2
    into = 2 * n * inside * d + 2 * TIME_FEATURES * d  # of the picture's patches, and of the time
    embed = into + 2 * d * d + 2 * text * text_width * d  # time's second layer, text
    stream = 2 * 12 * d * d  # of a token of either stream: query, key, value, output, and 8 of the feed-forward
    modulation = 2 * 6 * d * d  # of a stream
    block = (n + text) * stream + 2 * modulation + 4 * (n + text) ** 2 * d
    text_last = text * 2 * 2 * d * d + 2 * 2 * d * d  # keys and values, shift and scale
    last = n * stream + modulation + text_last + 4 * n * (n + text) * d
    out = 2 * 2 * d * d + 2 * n * d * inside
    return 3 * (embed + (c.depth - 1) * block + last + out) - into


def operations(settings: Settings, device: torch.device, notes: Notes) -> int:
    """Of one picture of a step, counted as they are done and by hand."""
    s = settings
    pipeline = pipeline_of(s.network, s.channels, s.side, Given(1, s.text, s.text_width)).to(device)
    counted = training_flops(pipeline)
    hand = by_hand(s.network, s.channels, s.side, s.text, s.text_width)
    parameters = sum(p.numel() for p in pipeline.parameters())
    notes.put("operations", {"counted": counted, "by_hand": hand, "parameters": parameters})
    notes.check("operations counted beside a count by hand", abs(counted / hand - 1), ALLOWED_COUNT)
    return hand


def attention_kernels(settings: Settings, device: torch.device, notes: Notes) -> None:
    """Milliseconds of a forward and backward of one block's attention by each of PyTorch's kernels, with the mask of
    padded text that the network gives it, and without."""
    c = settings.network
    length = settings.text + (settings.side // c.patch) ** 2
    shape = (min(ATTENTION_BATCH, settings.training.batches[0]), c.width // c.head_width, length, c.head_width)
    q, k, v = (torch.randn(shape, device=device).bfloat16().requires_grad_() for _ in range(3))
    mask = torch.zeros(shape[0], 1, 1, length, device=device, dtype=torch.bfloat16)

    def attend(way: Callable[[], AbstractContextManager[object]], bias: Tensor | None) -> None:
        with way():
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, H, N + L, d)
        y.backward(torch.ones_like(y))

    names = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
    ways = {name.partition("_")[0].lower(): partial(sdpa_kernel, getattr(SDPBackend, name)) for name in names}
    told: dict[str, dict[str, float]] = {}
    for asked, bias in {"masked": mask, "whole": None}.items():
        told[asked] = {}
        for name, way in {"as PyTorch chooses": nullcontext, **ways}.items():
            call = partial(attend, way, bias)
            try:
                told[asked][name] = 1000 * min([seconds_of(call, device) for _ in range(4)][1:])
            except RuntimeError:  # this kernel takes no such mask, or is not on this device
                continue
    notes.put("attention_ms", told)


def learner(model: Any, backward: Callable[[], Tensor], steps: int, read: bool = False) -> Call:
    """Optimizer steps as `fromnoise.training.loop` takes them: clipped, averaged, and losses read after the last; or
    where `read`, after every one.

    `backward` adds gradients and gives the losses.
    """

    def refuse(step: int, losses: list[float]) -> None:
        raise AssertionError(f"losses of step {step} are {losses}")

    optimizer, ema = Optimizer(model, ADAMW), Ema(model, 2000)

    def learn() -> None:
        outcomes = Outcomes(Progress(), model.device, ALONE, refuse)
        try:
            for step in range(steps):
                losses = backward()
                outcomes.add(losses, clip_gradients(model, 1.0))
                if read:
                    outcomes.read()
                optimizer.step(1.0, outcomes.broken)
                model.zero_grad()
                ema.update(step)
            outcomes.read()
        finally:
            model.zero_grad()  # where memory ran out, others want it back

    return learn


def plain(model: Pipeline, sample: Sample, dtype: torch.dtype | None, steps: int) -> Call:
    """Optimizer steps as a bare loop takes them: no clipping, no average, nothing read."""
    optimizer = torch.optim.AdamW(model.parameters(), ADAMW.lr, fused=True)

    def learn() -> None:
        for _ in range(steps):
            with autocast(model.device, dtype):
                loss = model.loss(*sample).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return learn


def compare(settings: Settings, batch: int, device: torch.device, flops: int, peak: float, notes: Notes) -> None:
    """Steps of a batch: ours, eager and compiled; diffusers' class, eager and compiled; a plain loop."""
    s, first = settings, batch == settings.training.batches[0]

    def put(told: dict[str, Any]) -> None:
        notes.put("batches", notes.found["batches"] | {str(batch): told})

    pipeline = pipeline_of(s.network, s.channels, s.side, Given(max(batch, CHECKED), s.text, s.text_width))
    stock = stock_beside(pipeline, device, s, notes if first else None) if installed("diffusers") else None
    sample, cond = conditioned(pipeline.to(device), batch)
    with ExitStack() as stack:
        contestants = our_contestants(pipeline, sample, s, stack)
        if stock is not None:
            contestants |= stock_contestants(stock, sample, cond, s)
        able, firsts = try_out(contestants, device, notes)
        weights = 4 * sum(p.numel() for p in pipeline.parameters()) / GIB
        told: dict[str, Any] = {"weights_gib": weights, "first_calls": firsts}
        if able:
            told |= summary(contest(able, s.training.rounds, device, notes), batch * s.training.steps, leader(able))
            if flops and peak:
                rates = told["images_per_second"]
                told["flop_utilisation"] = {name: rate * flops / peak for name, rate in rates.items()}
        put(told)
        if able and first:
            quickest = able[leader(able)]
            told["waits"] = notes.attempt("waits", partial(waits_of, quickest, device))
            told["busiest_kernels_ms"] = notes.attempt("profile", partial(kernels, quickest, device))
            put(told)


def leader(able: dict[str, Call]) -> str:
    """Whom the others are compared with."""
    return OURS if OURS in able else EAGER


def our_contestants(pipeline: Pipeline, sample: Sample, settings: Settings, stack: ExitStack) -> dict[str, Call]:
    """fromnoise's steps, and those of a plain loop, on the network of `pipeline`; what runs compiled has a copy of its
    own, and does so until `stack` ends."""
    device, steps, plan = pipeline.device, settings.training.steps, Plan()
    eager = dtype_of(fast_precision(device, plan))
    contestants = {
        EAGER: learner(pipeline, partial(accumulate_gradients, pipeline, sample, 1, eager), steps),
        PLAIN: plain(pipeline, sample, eager, steps),
    }
    if settings.compile:
        quick = copy.deepcopy(pipeline)
        backward = partial(accumulate_gradients, quick, sample, 1, dtype_of(fast_precision(device, plan)))
        stack.enter_context(quick.compiled())
        contestants = {
            OURS: learner(quick, backward, steps),
            READ: learner(quick, backward, steps, read=True),
            **contestants,
        }
    return contestants


def rival_of(settings: Settings) -> Rival:
    """The network beside diffusers' class of it."""
    from benchmarks.stock.mmdit import QwenImage

    s = settings
    return QwenImage(backbone=s.network, side=s.side, channels=s.channels, text=s.text, text_width=s.text_width)


def stock_beside(pipeline: Pipeline, device: torch.device, settings: Settings, notes: Notes | None) -> nn.Module:
    """diffusers' class on the device, with the weights that `pipeline` then has; `notes`, if any, are told how far
    apart loss and pictures of both are in float32."""
    from benchmarks.contests import gaps

    rival = rival_of(settings)
    stock = nn.Module.to(rival.beside(pipeline), device)
    if notes:
        apart = gaps(rival, pipeline.to(device), stock, CHECKED, CHECKED, settings.drawing.guidance)
        for what, gap in apart.items():
            notes.check(f"{what} beside diffusers' class in float32", gap, ALLOWED_GAP)
    return stock


def stock_contestants(stock: nn.Module, sample: Sample, cond: Cond, settings: Settings) -> dict[str, Call]:
    """diffusers' class under the same optimizer, clipping and average."""
    from benchmarks.stock.rival import Way, flow_loss

    device, steps, rival = sample.t.device, settings.training.steps, rival_of(settings)
    way = Way(dtype_of(fast_precision(device, Plan())), torch.float32)

    def contestant(compile: bool) -> Call:
        model = rival.held(stock, way, compile)
        answer = partial(rival.answer, model, told=rival.prompt(stock, cond, way), way=way)

        def backward() -> Tensor:
            loss = flow_loss(answer, sample)
            loss.backward()
            return loss.detach()

        return learner(model, backward, steps)

    return {STOCK: contestant(False)} | ({STOCK_COMPILED: contestant(True)} if settings.compile else {})


def kernels(call: Call, device: torch.device) -> dict[str, float]:
    """Milliseconds of the kernels that take longest in one turn, by name."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as watched:
        seconds_of(call, device)
    spent = {
        one.key: one.self_device_time_total if on_gpu else one.self_cpu_time_total for one in watched.key_averages()
    }
    longest = sorted(spent, key=lambda name: spent[name], reverse=True)[:PROFILED]
    return {name[:100]: spent[name] / 1000 for name in longest}
