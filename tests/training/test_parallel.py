"""Several processes train as one does: real processes, gloo, two and four of them.

Losses and weights of another number of processes are held to a relative 1e-4; to the bit means bytes of files.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.core.files import load_tensors
from fromnoise.training import drawing
from fromnoise.training.loop import train, train_vae
from fromnoise.training.run import Run, VAERun

Making = Callable[..., Any]
Together = Callable[[int, Run | VAERun, Path], None]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def one_of(rank: int, size: int, port: int, machines: int, run: Run | VAERun, directory: Path) -> None:
    """What process `rank` does, told by its environment as torchrun tells it."""
    own = size // machines
    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % own, "LOCAL_WORLD_SIZE": own}
    os.environ |= {key: str(value) for key, value in told.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    drawing.CAPTIONS = 500
    (train_vae if isinstance(run, VAERun) else train)(run, directory)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Trains in so many processes, which share a server that has torch loaded; as on two machines with `hsdp`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "torch.distributed.fsdp", "fromnoise.training.loop", "fromnoise.conditioning.text"]
    )

    def start(size: int, run: Run | VAERun, directory: Path) -> None:
        machines, port = 2 if run.training.parallel == "hsdp" else 1, free_port()
        processes = [
            context.Process(target=one_of, args=(rank, size, port, machines, run, directory)) for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * size

    yield start
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def close(one: Path, other: Path, within: float = 1e-4) -> None:
    """Assert that both runs went alike, and came to like weights."""
    for a, b in zip(lines(one), lines(other), strict=True):
        for key in ("loss", "gradient_norm", "validation_raw", "validation_ema"):
            if key in a:
                assert a[key] == pytest.approx(b[key], rel=within), (a["step"], key)
    for name in ("model", "ema"):
        a, b = (load_tensors(max((place / "checkpoints").iterdir()) / f"{name}.safetensors") for place in (one, other))
        assert a[1]["step"] == b[1]["step"]
        for key, value in a[0].items():
            torch.testing.assert_close(b[0][key], value, rtol=within, atol=within)


@pytest.fixture(scope="module")
def usual(tiny_run: Making) -> Run:
    """A run whose average lags behind, in two parts a step."""
    return tiny_run(steps=5, batch=16, accumulate=2, ema=0.6, log_every=1, save_every=3, preview_every=5, warmup=2)


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


@pytest.mark.parametrize(("size", "parallel"), [(2, "ddp"), (4, "ddp"), (2, "fsdp"), (4, "hsdp")])
def test_so_many_processes_train_as_one_does(
    tmp_path: Path, usual: Run, alone: Path, together: Together, size: int, parallel: str
) -> None:
    together(size, changed(usual, parallel=parallel), tmp_path)
    close(alone, tmp_path)
    assert (tmp_path / "previews" / "step-00000005.png").is_file()
    assert not list((tmp_path / "checkpoints").glob(".*"))
