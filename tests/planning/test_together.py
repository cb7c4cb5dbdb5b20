"""What a plan says of several processes, beside two real ones that talk by gloo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed._tools.fake_collectives import CollectiveOp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.chips import CHIPS
from fromnoise.core.ranks import joined
from fromnoise.data.config import ShapesConfig
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.planning.case import Case, case_of, memory_of, part_of
from fromnoise.planning.counts import counts_of
from fromnoise.planning.place import Crew, crew_at, where
from fromnoise.planning.several import advice
from fromnoise.planning.speed import Speed
from fromnoise.planning.together import GATHER, SCATTER, SUM, Message, Part
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.estimate import Pace
from fromnoise.training.optim import Optimizer
from fromnoise.training.parallel import split
from fromnoise.training.run import AdamW, Muon, Run, Training
from fromnoise.training.step import accumulate_gradients, clip_gradients
from tests.training.processes import all_of, become, server

SMALLEST = 1000  # bytes: messages below are norms
HERE = Speed(Pace(1.0, 0.1), "float32", False, "", None)


def run_of(parallel: str, optimizer: AdamW | Muon, accumulate: int = 1) -> Run:
    """A model of 16 million parameters, of which few are outside of blocks."""
    model = ModelConfig(
        backbone=MMDiTConfig(width=320, depth=4, head_width=64, patch=8),
        conditioner=LabelConfig(classes=10, width=320),
    )
    training = Training(
        batch=8, accumulate=accumulate, optimizer=optimizer, parallel=parallel, device="cpu", precision="float32"
    )
    return Run(model=model, data=ShapesConfig(), training=training)


class Sent(TorchDispatchMode):
    """Bytes of what is gathered and summed, as torch's own tools tell them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.distributed.tensor import DTensor

        if DTensor in types:
            return NotImplemented
        made = func(*args, **(kwargs or {}))
        name = func.__name__.replace("_", "")
        for kind in (GATHER, SCATTER, SUM):
            if func.namespace in ("c10d", "_c10d_functional") and kind.replace("-", "") in name:
                size = CollectiveOp.get_comm_tensor_size(func, made, args, kwargs)
                size //= (
                    len(args[0][0]) if name == "allgather.default" else 1
                )  # parts of one tensor, counted whole each
                self.bytes[kind] = self.bytes.get(kind, 0) + (size if size > SMALLEST else 0)
        return made


def step_of(rank: int, size: int, port: int, run: Run, place: Path) -> None:
    """What a process holds and sends in its second step: live bytes of tensors, as the allocator tells them."""
    become(rank, size, port)
    with joined("cpu") as ranks:
        trainee, training = Drawing(run, run.data.build(0), print, ranks), run.training
        model, parallel = trainee.build(), split(ranks, training)
        parallel.place(model, torch.device("cpu"))
        optimizer, ema = Optimizer(model, training.optimizer, parallel), Ema(model, 10.0)
        sample = trainee.trial(model, training.batch // size)
        learner, sent = parallel.learner(model, lambda: sample, None), Sent()
        if training.parallel == "ddp":
            learner.loss.register_comm_hook(None, allreduce_hook)  # type: ignore[attr-defined]  # in Python, to be seen

        def step() -> None:
            accumulate_gradients(learner, sample, training.accumulate, None, learner.synced)
            clip_gradients(model, 1.0)
            optimizer.step(1.0)
            model.zero_grad()
            ema.update(0)

        step()
        sent.bytes.clear()
        held = [*model.parameters(), *ema.average, *(x for x in optimizer.tensors().values() if x.ndim)]
        local = sum(getattr(x, "_local_tensor", x).nbytes for x in held)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched, sent:
            step()
        told = {"resident": local, "most": most(watched), "sent": sent.bytes}
        place.with_name(f"{place.name}-{rank}").write_text(json.dumps(told))


def most(watched: Any) -> int:
    events = [one for one in watched.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.fixture(scope="module")
def context() -> Any:
    with server() as context:
        yield context


def planned(run: Run, crew: Crew) -> tuple[Case, Part]:
    case = case_of(run, None, crew)
    with case.hollow() as subject:
        counts = counts_of(case.run, subject, 1)
    return case, part_of(case, counts, run.training.parallel, run.training.accumulate, HERE)


CREW = Crew(2, 1, 1e9, 1e9)


@pytest.mark.parametrize(
    ("parallel", "optimizer", "accumulate"),
    [("fsdp", AdamW(), 1), ("fsdp", Muon(), 2), ("ddp", Muon(), 1)],
    ids=["fsdp", "fsdp, Muon, in parts", "ddp, Muon"],
)
def test_two_processes_hold_and_send_what_was_planned(
    tmp_path: Path, context: Any, parallel: str, optimizer: AdamW | Muon, accumulate: int
) -> None:
    run = run_of(parallel, optimizer, accumulate)
    processes = all_of(context, 2, step_of, run, tmp_path / "told")
    _, part = planned(run, CREW)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    real = json.loads((tmp_path / "told-0").read_text())
    assert sum(part.resident) == pytest.approx(real["resident"], rel=0.001)
    buckets = part.gathered if parallel == "ddp" else 0  # DistributedDataParallel has them before the step
    step = part.counted.activations + part.counted.gradients + part.gathered + part.scattered - buckets
    assert sum(part.resident) + step == pytest.approx(real["resident"] + real["most"], rel=0.1)
    sent: dict[str, int] = {}
    for one in part.messages:
        sent[one.kind] = sent.get(one.kind, 0) + (one.bytes if one.bytes > one.count * SMALLEST else 0)
    assert {key: size for key, size in sent.items() if size} == pytest.approx(
        {key: size for key, size in real["sent"].items() if size}, rel=0.02
    )
