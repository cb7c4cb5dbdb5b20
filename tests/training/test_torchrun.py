"""Trainings that torchrun starts: processes that are killed, and two machines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fromnoise.conditioning.config import NoConditionConfig
from fromnoise.core.config import write_yaml
from fromnoise.core.files import load_tensors
from fromnoise.training.run import Run

Making = Callable[..., Run]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def unprompted(run: Run) -> Run:
    """`run` without text, which begins sooner."""
    return run.model_copy(update={"model": run.model.model_copy(update={"conditioner": NoConditionConfig(width=16)})})


def started(run: Run, directory: Path, *options: str) -> subprocess.Popen[str]:
    """A torchrun with these options that trains `run` in `directory`."""
    record = directory.with_suffix(".yaml")
    write_yaml(unprompted(run), record)
    command = ["-m", "fromnoise", "train", str(record), "--directory", str(directory)]
    return subprocess.Popen(
        [*TORCHRUN, *options, *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def workers(agent: int) -> list[int]:
    """The processes that a torchrun has started."""
    return list(map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split()))


def wait_for(happened: Callable[[], bool], agent: subprocess.Popen[str]) -> None:
    while not happened():
        assert agent.poll() is None, agent.communicate()[1]
        time.sleep(0.01)


def losses(directory: Path) -> list[Any]:
    told = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in told if "loss" in line]


def test_a_process_that_is_killed_ends_the_rest_and_the_restart_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_run: Making
) -> None:
    run = tiny_run(steps=60, batch=8, log_every=1, save_every=5, validate_every=60, preview_every=60, ema=0.5)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    with started(run, whole, "--nproc-per-node", "2") as agent:
        _, told = agent.communicate()
        assert agent.returncode == 0, told
    with started(run, torn, "--nproc-per-node", "2", "--max-restarts", "1") as agent:
        wait_for(lambda: (torn / "checkpoints" / "step-00000010").is_dir(), agent)
        os.kill(workers(agent.pid)[-1], signal.SIGKILL)
        _, told = agent.communicate()
        assert agent.returncode == 0, told
    print(told)
    assert "another process of this work is gone" in told and "going on from" in told
    assert "Traceback" not in told
    assert losses(whole) == losses(torn)
    for name in ("model", "ema", "optimizer", "optimizer-00001"):
        a, b = (
            load_tensors(place / "checkpoints" / "step-00000060" / f"{name}.safetensors")[0] for place in (whole, torn)
        )
        assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a), name


def test_two_machines_train_together(tmp_path: Path, tiny_run: Making) -> None:
    run = tiny_run(batch=8, parallel="hsdp")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    place = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}")
    agents = [started(run, tmp_path / "run", *place) for _ in range(2)]
    told = [agent.communicate()[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], told
    assert sum("is trained: 6 steps" in text for text in told) == 1
    (line, *_) = (tmp_path / "run" / "environment.jsonl").read_text().splitlines()
    assert json.loads(line)["processes"] == 2


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path, tiny_run: Making) -> None:
    with started(tiny_run(batch=5), tmp_path / "run", "--nproc-per-node", "2") as agent:
        _, told = agent.communicate()
    assert "training.batch is 5; allowed for 2 processes and training.accumulate 1: multiples of 2" in told
    assert not (tmp_path / "run").exists()
