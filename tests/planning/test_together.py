"""What a plan says of several processes, beside two real ones that talk by gloo."""

from __future__ import annotations

import json
import time
from itertools import accumulate as running
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed._tools.fake_collectives import CollectiveOp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from fromnoise.cli.main import main
from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.chips import CHIPS
from fromnoise.core.config import write_yaml
from fromnoise.core.ranks import joined
from fromnoise.data.config import PreparedConfig, ShapesConfig
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.planning.case import Beside, Case, case_of, memory_of, part_of
from fromnoise.planning.counts import counts_of
from fromnoise.planning.place import Crew
from fromnoise.planning.several import advice, bytes_of_sample
from fromnoise.planning.speed import Speed
from fromnoise.planning.together import EXCHANGE, GATHER, SCATTER, SUM, Exchanging, Message, Part
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.estimate import Pace, Resident
from fromnoise.training.hollow import Counted
from fromnoise.training.optim import Optimizer
from fromnoise.training.parallel import split
from fromnoise.training.run import AdamW, Muon, Run, Training
from fromnoise.training.step import accumulate_gradients, clip_gradients
from tests.training.processes import all_of, become, serving

SMALLEST = 1000  # bytes: messages below are norms
CREW = Crew(2, 1, 1e9, 1e9)
HERE = Speed(Pace(1.0, 0.1), "float32", False, "", None)


def run_of(parallel: Any, optimizer: AdamW | Muon, accumulate: int = 1, depth: int = 1) -> Run:
    """A model of 3 million parameters for each block, and few others."""
    model = ModelConfig(
        backbone=MMDiTConfig(width=320, depth=depth, head_width=64, patch=8),
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
        for kind in (GATHER, SCATTER, SUM, EXCHANGE):
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
        optimizer, ema = Optimizer(model, training.optimizer, parallel), Ema(model, 10.0, parallel)
        sample = trainee.trial(model, training.batch // size)
        learner, sent = parallel.learner(model, lambda: sample, None), Sent()
        if training.parallel == "ddp":
            learner.loss.register_comm_hook(None, allreduce_hook)  # type: ignore[attr-defined]  # in Python, to be seen

        def step() -> None:
            accumulate_gradients(learner, sample, training.accumulate, None, learner.synced)
            clip_gradients(model, 1.0, parallel)
            optimizer.step(1.0)
            model.zero_grad()
            ema.update(0)

        step()
        sent.bytes.clear()
        held = [*model.parameters(), *ema.average, *(x for x in optimizer.tensors().values() if x.ndim)]
        local = sum(getattr(x, "_local_tensor", x).nbytes for x in held)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched, sent:
            step()
            time.sleep(0.2)  # gloo's own thread lets go of what it sent: not once nobody watches
        living = []
        for _ in range(
            4
        ):  # gloo's own thread lets go of what it sent sooner or later: the least is what the step holds
            with Exchanging(model, parallel, CREW) as lives:
                step()
            living.append(lives.most)
        with Exchanging(model, parallel, CREW) as seen, torch.no_grad(), parallel.looking(model):
            model.loss(*sample.rows(0, 1))
        told = {"resident": local, "allocated": most(watched), "living": min(living), "sent": sent.bytes}
        told["looked"] = seen.gathered
        place.with_name(f"{place.name}-{rank}").write_text(json.dumps(told))


def most(watched: Any) -> int:
    """The most bytes that the allocator had given out, what gloo copies for itself among it."""
    events = [one for one in watched.profiler.kineto_results.events() if one.name() == "[memory]"]
    ordered = sorted(events, key=lambda one: one.start_ns())
    return max(running(one.nbytes() for one in ordered))


@pytest.fixture(scope="module")
def context() -> Any:
    with serving() as context:
        yield context


def planned(run: Run, crew: Crew) -> tuple[Case, Part]:
    case = case_of(run, None, crew)
    with case.hollow() as subject:
        counts = counts_of(case.run, subject, 1)
    return case, part_of(case, counts, case.run.training, HERE)


@pytest.mark.parametrize(
    ("parallel", "optimizer", "accumulate"),
    [("fsdp", Muon(), 2), ("ddp", AdamW(), 1)],
    ids=["fsdp, Muon, in parts", "ddp, AdamW"],
)
def test_two_processes_hold_and_send_what_was_planned(
    tmp_path: Path, context: Any, parallel: str, optimizer: AdamW | Muon, accumulate: int
) -> None:
    run = run_of(parallel, optimizer, accumulate, depth=4)
    processes = all_of(context, 2, step_of, run, tmp_path / "told")
    _, part = planned(run, CREW)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    real = json.loads((tmp_path / "told-0").read_text())
    assert sum(part.resident) == pytest.approx(real["resident"], rel=0.001)
    assert part.looked == pytest.approx(real["looked"], rel=0.01)
    assert part.looked < sum(part.resident) / 2  # two blocks of four, where one process holds half of all
    buckets = part.gathered if parallel == "ddp" else 0  # DistributedDataParallel has them before the step
    step = part.counted.activations + part.counted.gradients + part.gathered - buckets
    assert step == pytest.approx(real["living"], rel=0.03)
    assert sum(part.resident) + step == pytest.approx(real["resident"] + real["living"], rel=0.02)
    copies = sum(one.count for one in part.messages if one.kind == SCATTER)  # of gloo's, freed sooner or later
    assert 0.95 * step < real["allocated"] < 1.1 * step + copies * part.scattered
    sent: dict[str, int] = {}
    for one in part.messages:
        sent[one.kind] = sent.get(one.kind, 0) + (one.bytes if one.bytes > one.count * SMALLEST else 0)
    assert {key: size for key, size in sent.items() if size} == pytest.approx(
        {key: size for key, size in real["sent"].items() if size}, rel=0.02
    )


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (Message("all-gather", 8, 1, False, 1, 8_000_000), 7_000_000 / 1e9),
        (Message("all-reduce", 8, 1, False, 1, 8_000_000), 14_000_000 / 1e9),
        (Message("all-reduce", 2, 2, False, 1, 8_000_000), 8_000_000 / 1e8),  # one of each machine: its own network
        (Message("all-gather", 16, 2, False, 1, 16_000_000), 15_000_000 / 8e8),  # all of a machine's networks
    ],
)
def test_messages_take_as_long_as_their_narrowest_link(message: Message, seconds: float) -> None:
    crew = Crew(16, 2, 1e9, 1e8)
    assert seconds < message.seconds(crew) < seconds + 1e-3
    assert message._replace(count=2).seconds(crew) > message.seconds(crew)


def test_the_way_is_advised_that_fits_and_is_quickest() -> None:
    def way(fits: bool, step: float) -> dict[str, Any]:
        return {"fits": fits, "step_seconds": step}

    assert advice({"ddp": way(True, 1.0), "fsdp": way(True, 1.1)}) == "ddp is the quickest that fits"
    assert advice({"ddp": way(True, 1.0), "fsdp": way(True, 0.9)}) == "fsdp is the quickest that fits"
    assert "does not fit: fsdp is" in advice({"ddp": way(False, 1.0), "fsdp": way(True, 1.1)})
    assert advice({"ddp": way(False, 1.0), "fsdp": way(False, 1.1)}) == "nothing fits"


def test_a_plan_of_several_tells_what_each_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_yaml(run_of("hsdp", AdamW()), tmp_path / "run.yaml")
    args = ["plan", str(tmp_path / "run.yaml"), "--device", "h100", "--processes", "4", "--machines", "2"]
    assert main([*args, "--price", "3", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    crew, memory = plan["together"], plan["memory"]
    weights = 4 * sum(plan["parameters"]["trained"].values())
    assert memory["weights"] == pytest.approx(weights / 2, rel=0.01) and memory["moments"] == 2 * memory["weights"]
    assert memory["gathered"] in crew["gathered"].values()
    assert set(crew["kinds"]) == {"ddp", "fsdp", "hsdp"} and crew["pictures_of_a_process"] == 2
    assert crew["kinds"]["ddp"]["sent"] == pytest.approx(2 * 3 / 4 * weights, rel=0.001)
    assert crew["kinds"]["fsdp"]["sent"] == pytest.approx(3 * 3 / 4 * weights, rel=0.01)
    assert crew["kinds"]["hsdp"]["sent"] == pytest.approx((3 / 2 + 1 / 2) * weights, rel=0.01)
    assert crew["link"] == CHIPS["H100"].link and crew["network"] == CHIPS["H100"].network
    assert crew["checkpoint"]["first"] == pytest.approx(2 * weights + memory["moments"], rel=0.01)
    assert plan["cost"] == pytest.approx(4 * 3 * plan["time"]["hours"])
    assert main(args) == 0
    text = capsys.readouterr().out
    for words in (
        "by 4 processes on 2 machines (hsdp) on H100, 2 pictures",
        "all-reduce among 2 processes on 2",
        "ddp",
    ):
        assert words in text


def test_text_encoders_are_not_on_gpus_that_share_out_weights() -> None:
    counted = Counted(activations=10, gradients=0, kernels=0, traffic=0)
    whole = Part(Resident(1, 1, 2), counted, 3, 0, 0, [], 50, 0, split=False)
    gpu = Beside(share=1.0, look=0, frozen=100, encoders=80, program=0, overhead=0, cpu=False)
    assert memory_of(whole, gpu).frozen == 100
    assert memory_of(whole._replace(split=True), gpu).frozen == 20
    on_cpu = memory_of(whole._replace(split=True), gpu._replace(cpu=True))
    assert (on_cpu.frozen, on_cpu.overhead) == (100, 50)  # where a checkpoint is copied, too


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--processes", "3"],
            "training.batch is 8; allowed for 3 processes and training.accumulate 1: multiples of",
        ),
        (["--processes", "4", "--machines", "3"], "4 processes on 3 machines; allowed: as many on each"),
    ],
)
def test_what_does_not_come_out_even_is_refused(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_yaml(run_of("ddp", AdamW()), tmp_path / "run.yaml")
    assert main(["plan", str(tmp_path / "run.yaml"), "--device", "h100", *args]) == 2
    assert words in capsys.readouterr().err


def test_prepared_data_tell_what_a_sample_takes(tmp_path: Path) -> None:
    prepare("shapes:40", tmp_path / "set", Preparation(size=32))
    run = run_of("ddp", AdamW()).model_copy(update={"data": PreparedConfig(path=tmp_path / "set")})
    files = sum(file.stat().st_size for file in (tmp_path / "set").glob("*.safetensors"))
    assert bytes_of_sample(case_of(run, None, CREW)) == pytest.approx(files / 40)
    absent = run.model_copy(update={"data": PreparedConfig(path=tmp_path / "none")})
    case = case_of(absent, None, CREW)
    assert bytes_of_sample(case) == 2 * 3 * 32 * 32 and "read whole" in case.assumed[-1]
    assert bytes_of_sample(case_of(run_of("ddp", AdamW()), None, CREW)) is None
