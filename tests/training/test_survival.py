"""Runs that survive: kills, Ctrl-C and SIGTERM, by real processes. "To the bit" means bytes of files."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.core.config import write_yaml
from fromnoise.core.files import load_metadata, load_tensors
from fromnoise.models.config import DiTConfig
from fromnoise.training import drawing, reconstruction
from fromnoise.training.loop import train, train_vae
from fromnoise.training.run import Run, VAERun
from tests.training.processes import serving

TIMED = ("seconds", "images_per_second", "waiting_for_data", "step_seconds")
KILLS = 8
Launch = Callable[[Run | VAERun, Path], ForkServerProcess]
Command = Callable[[list[str], Path], ForkServerProcess]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServerContext]:
    """Starts processes that have torch loaded: ten would load it for long."""
    modules = ["torch._dynamo", "fromnoise.training.loop", "fromnoise.conditioning.text", "fromnoise.reporting.report"]
    with serving(modules) as context:
        yield context


@pytest.fixture(scope="module")
def launch(server: ForkServerContext) -> Launch:
    """Starts a training in a process of its own."""

    def start(run: Run | VAERun, directory: Path) -> ForkServerProcess:
        process = server.Process(target=one_of, args=(run, directory))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def command(server: ForkServerContext) -> Command:
    """Starts the command with these words in a process of its own, which tells into a file."""

    def start(words: list[str], told: Path) -> ForkServerProcess:
        process = server.Process(target=run_command, args=(words, told))
        process.start()
        return process

    return start


def one_of(run: Run | VAERun, directory: Path) -> None:
    """A training, less what takes long before its first step."""
    drawing.CAPTIONS, reconstruction.VALIDATED, reconstruction.MEASURED = 500, 32, 64
    (train_vae if isinstance(run, VAERun) else train)(run, directory)  # type: ignore[arg-type]


def run_command(words: list[str], told: Path) -> None:
    """What the command does, as soon as `one_of`."""
    drawing.CAPTIONS = 500
    with open(told, "w") as sys.stderr:
        raise SystemExit(main(words))


def outcome(directory: Path) -> dict[str, bytes]:
    """All that must not depend on interruptions: bytes of weights, of the optimizer's state, of previews and metrics,
    less the times taken."""
    found: dict[str, bytes] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.name == "optimizer.safetensors":
            tensors, metadata = load_tensors(path)
            state = {key: value.numpy().tobytes() for key, value in tensors.items()}
            progress = json.loads(metadata["progress"])
            found |= {f"{name}/{key}": value for key, value in state.items()}
            found[f"{name}/progress"] = json.dumps([progress["step"], progress["losses"]]).encode()
        elif path.suffix in (".safetensors", ".png", ".yaml", ".json"):
            found[name] = path.read_bytes()
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in TIMED} for line in lines]
    return found | {"metrics": json.dumps(kept).encode()}


def steps_told(directory: Path) -> int:
    file = directory / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0


@pytest.mark.parametrize(("kind", "steps", "kills"), [("tiny_run", 30, KILLS), ("tiny_vae_run", 12, KILLS // 4)])
def test_killed_at_random_moments_it_ends_in_the_same_bits(
    tmp_path: Path, request: pytest.FixtureRequest, launch: Launch, kind: str, steps: int, kills: int
) -> None:
    run = request.getfixturevalue(kind)(steps=steps, log_every=2, save_every=3, validate_every=10, preview_every=15)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    process = launch(run, whole)
    process.join()
    assert process.exitcode == 0

    seed = time.time_ns()
    chance = random.Random(seed)
    killed = 0
    for _ in range(kills):
        enough = steps_told(torn) + chance.randint(0, 6)
        process = launch(run, torn)
        while process.is_alive() and steps_told(torn) < enough:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert all(len(list(path.iterdir())) == 3 for path in (torn / "checkpoints").glob("step-*"))
    assert killed >= kills / 2
    process = launch(run, torn)
    process.join()
    assert process.exitcode == 0
    a, b = outcome(whole), outcome(torn)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == [], f"chance {seed}"
    assert not [path for path in torn.rglob(".*") if "step-" in path.name]


def test_killed_while_it_runs_compiled_it_ends_in_the_same_bits(
    tmp_path: Path, tiny_run: Callable[..., Run], launch: Launch
) -> None:
    run = tiny_run(steps=12, save_every=2, preview_every=12, compile="on")
    blocks = DiTConfig(width=16, depth=2, head_width=8, patch=8)  # of one kind: compiled soonest
    run = run.model_copy(update={"model": run.model.model_copy(update={"backbone": blocks})})
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for directory in (whole, torn):
        process = launch(run, directory)
        while directory == torn and process.is_alive() and steps_told(torn) < 6:
            time.sleep(0.001)
        if directory == torn:
            process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    process = launch(run, torn)
    process.join()
    assert process.exitcode == 0
    a, b = outcome(whole), outcome(torn)
    assert [name for name in a if a[name] != b.get(name)] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_saves_and_goes_on_later(
    tmp_path: Path, tiny_run: Callable[..., Run], command: Command, number: signal.Signals, code: int
) -> None:
    run = tiny_run(steps=100_000, save_every=100_000, validate_every=100_000, preview_every=100_000)
    write_yaml(run, tmp_path / "run.yaml")
    steps = [0]
    for attempt in range(2 if number == signal.SIGTERM else 1):
        file = tmp_path / f"told-{attempt}"
        process = command(["train", str(tmp_path / "run.yaml")], file)
        while process.is_alive() and not (file.is_file() and "\nstep " in file.read_text()):
            time.sleep(0.005)
        assert process.pid
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == code
        told = file.read_text().splitlines()
        assert not any("Traceback" in line for line in told)
        checkpoint = max((tmp_path / "checkpoints").iterdir())
        assert told[-2] == f"stopped; saved {checkpoint}; the same command goes on"
        assert told[-1] == f"report: {tmp_path / 'report.html'}"
        steps.append(int(load_metadata(checkpoint / "model.safetensors")["step"]))
    assert all(a < b for a, b in pairwise(steps))
