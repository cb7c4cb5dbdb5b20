"""Several processes train as one does: real processes, gloo, two and four of them.

Losses and weights of another number of processes are held to a relative 1e-4; to the bit means bytes of files.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.conditioning.config import NoConditionConfig
from fromnoise.core.config import write_yaml
from fromnoise.core.files import load_tensors
from fromnoise.core.ranks import joined
from fromnoise.training import drawing, outcomes, reconstruction, step
from fromnoise.training.loop import train, train_vae
from fromnoise.training.run import Run, VAERun
from tests.training.conftest import spoilt
from tests.training.processes import all_of, become, free_port, serving

Making = Callable[..., Any]
Together = Callable[..., list[int]]
SOON = ["--monitor-interval", "0.02"]  # seconds between two looks of a torchrun at its processes


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def one_of(
    rank: int, size: int, port: int, machines: int, run: Run | VAERun, directory: Path, most: int | None
) -> None:
    """What process `rank` does, told by its environment as torchrun tells it. most: bytes of a file of the last one."""
    if most and rank == size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    become(rank, size, port, machines)
    drawing.CAPTIONS, reconstruction.VALIDATED, reconstruction.MEASURED = 500, 32, 64
    try:
        (train_vae if isinstance(run, VAERun) else train)(run, directory)  # type: ignore[arg-type]
    except ValueError as error:
        fault_of(rank, directory).write_text(str(error))
        raise


def fault_of(rank: int, directory: Path) -> Path:
    """Where process `rank` writes why it ended: what it prints goes to where their server was told to, once."""
    return directory.with_name(f"{directory.name}-fault-{rank}")


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Trains in so many processes, which share a server that has torch loaded; as on two machines with `hsdp`."""

    def start(
        size: int, run: Run | VAERun, directory: Path, stop_at: int | None = None, most: int | None = None
    ) -> list[int]:
        processes = all_of(context, size, one_of, 2 if run.training.parallel == "hsdp" else 1, run, directory, most)
        if stop_at is not None:
            wait_for(lambda: steps_told(directory) >= stop_at, processes[0].is_alive)
            processes[-1].terminate()
        for process in processes:
            process.join()
        return [process.exitcode or 0 for process in processes]

    with serving() as context:
        yield start


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def steps_told(directory: Path) -> int:
    file = directory / "metrics.jsonl"
    whole = file.read_text().rpartition("\n")[0].splitlines() if file.is_file() else []
    return json.loads(whole[-1])["step"] if whole else 0


def wait_for(happened: Callable[[], bool], alive: Callable[[], bool]) -> None:
    while not happened():
        assert alive()
        time.sleep(0.005)


def last(directory: Path) -> Path:
    return max((directory / "checkpoints").iterdir())


def same(one: Path, other: Path) -> None:
    """Assert that both runs went alike, and came to the same weights, to the bit."""
    told = [[(a["step"], a["loss"], a["gradient_norm"]) for a in lines(place) if "loss" in a] for place in (one, other)]
    assert told[0] == told[1]
    files = {file.name for file in last(one).iterdir()}
    assert files == {file.name for file in last(other).iterdir()} and len(files) >= 3
    for name in files:
        a, b = (load_tensors(last(place) / name)[0] for place in (one, other))
        assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a), name


def close(one: Path, other: Path, within: float = 1e-4) -> None:
    """Assert that both runs went alike, and came to like weights."""
    for a, b in zip(lines(one), lines(other), strict=True):
        for key in ("loss", "gradient_norm", "validation_raw", "validation_ema"):
            if key in a:
                assert a[key] == pytest.approx(b[key], rel=within), (a["step"], key)
    for name in ("model", "ema"):
        a, b = (load_tensors(last(place) / f"{name}.safetensors") for place in (one, other))
        assert a[1]["step"] == b[1]["step"]
        for key, value in a[0].items():
            torch.testing.assert_close(b[0][key], value, rtol=within, atol=within)


def unprompted(run: Run) -> Run:
    """`run` without text, which begins sooner."""
    return run.model_copy(update={"model": run.model.model_copy(update={"conditioner": NoConditionConfig(width=16)})})


def torchrun(words: list[str], told: Path) -> None:
    """What the command torchrun does with these words, in a process that has torch loaded; it tells into a file."""
    from torch.distributed.run import main

    with open(told, "wb") as file:
        os.dup2(file.fileno(), 2)
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    main(words)


class Torchrun(NamedTuple):
    """A torchrun that has been started."""

    process: ForkServerProcess
    told: Path

    def ended(self) -> tuple[int, str]:
        """How it ended, and what it and its processes told."""
        self.process.join()
        return self.process.exitcode or 0, self.told.read_text()


ENTRY = """\
import sys
import torch
from fromnoise.cli.main import main
torch.set_num_threads(1)
if code := main(sys.argv[1:]):
    sys.exit(code)
"""


def started(run: Run, directory: Path, told: Path, *options: str, forked: bool = False) -> Torchrun:
    """A torchrun with these options that trains `run` in `directory`, and tells into the file `told`. forked: its
    processes have torch loaded, too, as they are forks of it; else they begin as a user's do."""
    record, entry = directory.with_suffix(".yaml"), directory.with_suffix(".py")
    write_yaml(run, record)
    entry.write_text(ENTRY)
    program = ["--run-path", "--start-method", "fork", str(entry)] if forked else ["-m", "fromnoise"]
    words = [*options, *program, "train", str(record), "--directory", str(directory)]
    process = multiprocessing.get_context("forkserver").Process(target=torchrun, args=(words, told))
    process.start()
    return Torchrun(process, told)


def workers(agent: int | None) -> list[int]:
    """The processes that a torchrun has started."""
    return list(map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split()))


@pytest.fixture(scope="module")
def usual(tiny_run: Making) -> Run:
    """A run whose average lags behind, in two parts a step."""
    every = {"log_every": 1, "save_every": 3, "validate_every": 4}
    shown = ("a red circle", "two stars", "a ring")  # which do not come out even
    return tiny_run(steps=7, batch=16, accumulate=2, ema=0.6, warmup=2, previews=shown, **every)


@pytest.fixture(scope="module")
def alone(usual: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    place = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "CAPTIONS", 500)
        train(usual, place)
    return place


def changed(run: Any, **training: Any) -> Any:
    return run.model_copy(update={"training": run.training.model_copy(update=training)})


@pytest.mark.parametrize(
    ("size", "parallel", "recompute"), [(2, "ddp", True), (4, "ddp", False), (2, "fsdp", True), (4, "hsdp", False)]
)
def test_so_many_processes_train_as_one_does(
    tmp_path: Path, usual: Run, alone: Path, together: Together, size: int, parallel: str, recompute: bool
) -> None:
    assert not any(together(size, changed(usual, parallel=parallel, recompute=recompute), tmp_path))
    close(alone, tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))
    with (
        Image.open(tmp_path / "previews" / "step-00000007.png") as a,
        Image.open(alone / "previews" / "step-00000007.png") as b,
    ):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 2


@pytest.mark.parametrize(("parallel", "steps"), [("ddp", 18), ("fsdp", 10)])  # of which fsdp's take twice as long
def test_asked_to_stop_one_of_three_stops_all_and_they_go_on_to_the_same_bits(
    tmp_path: Path, tiny_run: Making, together: Together, parallel: str, steps: int
) -> None:
    every = {"log_every": 1, "save_every": steps, "validate_every": steps, "preview_every": steps}
    run = unprompted(tiny_run(steps=steps, batch=12, ema=0.6, parallel=parallel, **every))
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert together(3, run, whole) == [0, 0, 0]
    assert together(3, run, torn, stop_at=2) == [143, 143, 143]
    stopped = int(last(torn).name.removeprefix("step-"))
    assert 2 <= stopped < steps
    assert together(3, run, torn) == [0, 0, 0]
    same(whole, torn)


def test_a_process_that_cannot_write_ends_all_and_harms_no_checkpoint(
    tmp_path: Path, tiny_run: Making, together: Together
) -> None:
    run, place = unprompted(tiny_run(steps=4, batch=8, save_every=2)), tmp_path / "run"
    assert together(2, run, place, most=2000) == [1, 1]
    assert not list((place / "checkpoints").iterdir())
    told = fault_of(0, place).read_text()
    assert "checkpoint of step 2: process 1 could not write its part; there is no earlier one" in told


def test_a_part_of_a_checkpoint_that_was_altered_is_found_by_one_and_told_by_all(
    tmp_path: Path, tiny_run: Making, together: Together
) -> None:
    run, place = unprompted(tiny_run(steps=2, batch=8, parallel="fsdp")), tmp_path / "run"
    assert together(2, run, place) == [0, 0]
    file = last(place) / "optimizer.safetensors"  # which the second reads
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert together(2, run, place) == [1, 1]
    (line,) = {fault_of(rank, place).read_text() for rank in range(2)}
    assert line.startswith(f"damaged checkpoint {last(place)}: {file} was altered after it was written")


def test_a_training_goes_on_with_other_numbers_of_processes(
    tmp_path: Path, usual: Run, alone: Path, together: Together
) -> None:
    place = tmp_path / "run"
    shutil.copytree(alone, place)
    shutil.rmtree(last(place))  # of one process there is step 3, and each goes on where the one before is told to stop
    often = changed(usual, save_every=1, keep=9)
    for saved, size, parallel in ((4, 2, "ddp"), (5, 4, "hsdp"), (6, 2, "fsdp")):
        assert not any(together(size, changed(often, parallel=parallel), place))
        close(alone, place)
        files = {file.name for file in last(place).glob("optimizer*")}
        assert files == {"optimizer.safetensors", "optimizer-00001.safetensors"}  # none writes what another has, too
        for path in (place / "checkpoints").iterdir():
            if path.name > f"step-{saved:08d}":
                shutil.rmtree(path)
    train(often, place)
    close(alone, place)


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_a_vae_is_trained_together(
    tmp_path: Path, tiny_vae_run: Making, together: Together, monkeypatch: pytest.MonkeyPatch, adversarial: float
) -> None:
    """With a discriminator as with as many parts of a batch, for each of which its weight is reckoned."""
    monkeypatch.setattr(reconstruction, "VALIDATED", 32)
    run = tiny_vae_run(steps=3, batch=8, log_every=1, ema=0.5)
    judged = {"adversarial": adversarial, "adversarial_start": 1, "discriminator_width": 8, "discriminator_layers": 1}
    loss = run.model.loss.model_copy(update=judged)
    run = run.model_copy(update={"model": run.model.model_copy(update={"loss": loss})})
    train_vae(changed(run, accumulate=2), tmp_path / "alone")
    assert not any(together(2, changed(run, parallel="ddp" if adversarial else "fsdp"), tmp_path / "run"))
    close(tmp_path / "alone", tmp_path / "run")
    assert (tmp_path / "run" / "vae" / "config.json").is_file()


def test_a_process_that_is_killed_ends_the_rest_and_the_restart_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_run: Making, together: Together
) -> None:
    run = unprompted(
        tiny_run(steps=25, batch=8, log_every=1, save_every=5, validate_every=25, preview_every=25, ema=0.5)
    )
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert together(2, run, whole) == [0, 0]
    place = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    agent = started(run, torn, tmp_path / "told", *place, *SOON, forked=True)
    wait_for((torn / "checkpoints" / "step-00000005").is_dir, agent.process.is_alive)
    os.kill(workers(agent.process.pid)[-1], signal.SIGKILL)
    code, told = agent.ended()
    assert code == 0, told
    assert "going on from" in told and told.count("is trained: 25 steps") == 1
    same(whole, torn)


def test_two_machines_train_together_and_after_a_kill_on_one_go_on_to_the_same_bits(
    tmp_path: Path, tiny_run: Making, together: Together
) -> None:
    run = unprompted(
        tiny_run(steps=25, batch=8, parallel="hsdp", save_every=5, log_every=1, validate_every=25, preview_every=25)
    )
    whole, torn, port = tmp_path / "whole", tmp_path / "torn", free_port()
    assert together(2, run, whole) == [0, 0]
    place = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--max-restarts", "1"]
    agents = [started(run, torn, tmp_path / "first", *place, *SOON)]
    wait_for(lambda: listens(port), agents[0].process.is_alive)  # both would be where the others meet
    agents.append(started(run, torn, tmp_path / "second", *place, *SOON, forked=True))
    wait_for((torn / "checkpoints" / "step-00000005").is_dir, agents[1].process.is_alive)
    os.kill(workers(agents[1].process.pid)[-1], signal.SIGKILL)
    ends = [agent.ended() for agent in agents]
    assert [code for code, _ in ends] == [0, 0], ends
    told = "".join(told for _, told in ends)
    assert "going on from" in told and told.count("is trained: 25 steps") == 1
    same(whole, torn)
    (line, *_) = (torn / "environment.jsonl").read_text().splitlines()
    assert json.loads(line)["processes"] == 2


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path, tiny_run: Making, together: Together) -> None:
    place = tmp_path / "run"
    assert together(2, unprompted(tiny_run(batch=5)), place) == [1, 1]
    for rank in range(2):
        told = fault_of(rank, place).read_text()
        assert "training.batch is 5; allowed for 2 processes and training.accumulate 1: multiples of 2" in told
    assert not place.exists()


def told_ahead(rank: int, size: int, port: int, run: Run, directory: Path) -> None:
    """As `one_of`, on a CPU that is taken for a device that is told of steps before it takes them. The second process's
    part of the fifth step's batch, of a seed that nothing else has, is spoilt."""
    outcomes.queues = step.queues = lambda device: True  # type: ignore[assignment]
    drawing.draw = spoilt(7, 4, 6)  # type: ignore[assignment]
    one_of(rank, size, port, 1, run, directory, None)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_steps_told_ahead_come_to_the_same_bits_and_a_fault_is_found_late(
    tmp_path: Path, tiny_run: Making, together: Together, parallel: str
) -> None:
    every = {"log_every": 3, "save_every": 4, "validate_every": 8, "preview_every": 8}
    run = unprompted(tiny_run(steps=8, batch=8, ema=0.5, parallel=parallel, **every))
    now, late, broken = tmp_path / "now", tmp_path / "late", tmp_path / "broken"
    assert together(2, run, now) == [0, 0]
    context = multiprocessing.get_context("forkserver")
    for run_of, directory in ((run, late), (changed(run, seed=7), broken)):
        processes = all_of(context, 2, told_ahead, run_of, directory)
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == ([1, 1] if directory == broken else [0, 0])
    same(now, late)
    for rank in range(2):
        told = fault_of(rank, broken).read_text()
        assert told.startswith("the loss is not finite at step 4: first in sample 2 of 4 (t=")
    assert [place.name for place in (broken / "checkpoints").iterdir()] == ["step-00000004"]


def of_another_seed(rank: int, size: int, port: int, run: Run, directory: Path) -> None:
    """As `one_of`, with a seed that is the process's own."""
    one_of(rank, size, port, 1, changed(run, seed=rank), directory, None)


@pytest.mark.usefixtures("together")
def test_processes_with_other_settings_end_together_and_leave_nothing(tmp_path: Path, tiny_run: Making) -> None:
    place, context = tmp_path / "run", multiprocessing.get_context("forkserver")
    processes = all_of(context, 2, of_another_seed, unprompted(tiny_run(batch=4)), place)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [1, 1]
    for rank in range(2):
        assert fault_of(rank, place).read_text().startswith("process 1 has other settings than process 0: all machines")
    assert not place.exists()


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for key, value in told.items():
            monkeypatch.setenv(key, str(value))
        with pytest.raises(ValueError, match=f"port {port} is taken on this machine"), joined("cpu"):
            pass
