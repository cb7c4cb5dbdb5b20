"""What tests of several processes share: a server that has torch loaded, and what torchrun tells a process."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

PRELOADED = [
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.run",
    "fromnoise.training.loop",
    "fromnoise.conditioning.text",
]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def serving(preloaded: Sequence[str] = PRELOADED) -> Iterator[Any]:
    """A context of multiprocessing whose processes begin with these modules loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    yield context
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def become(rank: int, size: int, port: int, machines: int = 1) -> None:
    """Let this process know what torchrun tells one: it is `rank` of `size`, and has one thread.

    Where it crashes, it tells where it was."""
    faulthandler.enable()
    own = size // machines
    said = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % own, "LOCAL_WORLD_SIZE": own}
    os.environ |= {key: str(value) for key, value in said.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)


def all_of(context: Any, size: int, work: Callable[..., None], *args: object) -> list[Any]:
    """Begin `work(rank, size, port, *args)` in so many processes."""
    port = free_port()
    processes = [context.Process(target=work, args=(rank, size, port, *args)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes
