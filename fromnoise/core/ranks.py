"""The processes of one piece of work, which torchrun starts: who this one is, and what all tell each other.

A process that was started by itself is the only one, and has from each of these back what it gave. Torch is imported
only where there are several, so that a command may ask who it is.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATIENCE = 3.0  # seconds that the first process has to tell of a fault that all have
LOST = ("Connection closed", "Connection reset", "Connection refused", "Broken pipe", "ncclRemoteError")
"""Words of torch's in the errors of a process whose others are gone."""


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def let_first_speak() -> None:
    """Wait before a fault is told by another process than the first: if that has it, too, and ends, torchrun ends this
    one meanwhile, and it is told once."""
    if not is_first():
        time.sleep(PATIENCE)


class Ranks(ABC):
    """Processes 0 to `size` - 1, of which this one is `rank`. What is said here of all, all have to call."""

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def share(self, count: int, rank: int | None = None) -> tuple[int, int]:
        """Which of `count` things are this one's, or those of `rank`, from the first to the last, which is left out: as
        many for each, but fewer or none for the last ones where that does not come out even."""
        each, place = -(-count // self.size), self.rank if rank is None else rank
        return min(place * each, count), min((place + 1) * each, count)

    def span(self, count: int) -> tuple[int, int]:
        """As many of at least one thing for each: its `share`, before which the last ones have some of others', too.
        Who shares out weights has to ask its model as often as all others."""
        each = -(-count // self.size)
        first = min(self.rank * each, count - each)
        return first, first + each

    @abstractmethod
    def every(self, *values: float) -> list[tuple[float, ...]]:
        """What each of them gave, in order; nothing is a way to wait for all."""

    @abstractmethod
    def rows(self, own: Tensor, count: int) -> Tensor:
        """All of `count` rows in order, of which each has its `share` or its `span`: (span, ...) -> (count, ...)."""

    @abstractmethod
    def agreed(self, text: str, whose: int = 0) -> str:
        """What one of them gave, the first one if no other is named."""

    def fault(self, own: str) -> str:
        """What the first of them that has a fault tells of it; nothing where none has one."""
        whose = next((rank for rank, (bad,) in enumerate(self.every(bool(own))) if bad), 0)
        return self.agreed(own, whose)

    @abstractmethod
    def device(self, picked: torch.device) -> torch.device:
        """This process's own, of the kind that was picked."""

    @abstractmethod
    def apart(self) -> Ranks:
        """The same ones, for a thread that talks to its like while others talk."""


class Alone(Ranks):
    """The only process."""

    rank, size = 0, 1

    def every(self, *values: float) -> list[tuple[float, ...]]:
        return [values]

    def rows(self, own: Tensor, count: int) -> Tensor:
        return own

    def agreed(self, text: str, whose: int = 0) -> str:
        return text

    def device(self, picked: torch.device) -> torch.device:
        return picked

    def apart(self) -> Ranks:
        return self


class Together(Ranks):
    """Several processes, of a `group` of torch.distributed. Numbers and bytes pass between them, nothing pickled."""

    def __init__(self, group: Any):
        import torch.distributed as dist

        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def every(self, *values: float) -> list[tuple[float, ...]]:
        import torch
        import torch.distributed as dist

        own = torch.tensor(values, dtype=torch.float64)
        told = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(told, own, group=self.group)
        return [tuple(one.tolist()) for one in told]

    def rows(self, own: Tensor, count: int) -> Tensor:
        import torch
        import torch.distributed as dist

        each = -(-count // self.size)
        padded = own.new_zeros(each, *own.shape[1:])
        first, last = self.share(count)
        padded[: last - first] = own[len(own) - (last - first) :]  # with what a span has before it left out
        told = own.new_empty(self.size * each, *own.shape[1:])
        flat, mine = (x.reshape(-1).view(torch.uint8) for x in (told, padded))  # gloo does not know every type
        dist.all_gather(list(flat.chunk(self.size)), mine, group=self.group)
        return told[:count]

    def agreed(self, text: str, whose: int = 0) -> str:
        import torch
        import torch.distributed as dist

        data = text.encode()
        (length,) = self.every(len(data))[whose]
        told = torch.frombuffer(bytearray(data.ljust(int(length))[: int(length)] or b" "), dtype=torch.uint8)
        dist.broadcast(told, group=self.group, group_src=whose)
        return bytes(told.tolist()[: int(length)]).decode()

    def device(self, picked: torch.device) -> torch.device:
        import torch

        return torch.device("cuda", torch.cuda.current_device()) if picked.type == "cuda" else picked

    def apart(self) -> Ranks:
        import torch.distributed as dist

        return Together(dist.new_group(backend="gloo"))


ALONE = Alone()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started this one with, each on a GPU of its own where `device` (of `pick`) is one;
    else this one alone.

    Raises:
        ValueError: one line: there are too few GPUs, or another process is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    from fromnoise.core.device import pick

    kind, own = pick(device).type, int(os.environ["LOCAL_RANK"])
    if kind == "mps":
        raise ValueError("several processes cannot share MPS; allowed: --training.device cpu, or no torchrun")
    if kind == "cuda":
        if own >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ValueError(f"torchrun started process {own} (from 0) here, where GPUs are {count}; allowed: one each")
        torch.cuda.set_device(own)
    ended = False
    try:
        store, rank, size = next(dist.rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # torch 2.13 keeps the store when torchrun starts processes anew, and they would look for the old ones.
            store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        yield Together(dist.group.WORLD)
        ended = True
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if not (isinstance(error, dist.DistNetworkError) or any(word in reason for word in LOST)):
            raise
        if "EADDRINUSE" in reason:
            port = os.environ["MASTER_PORT"]
            raise ValueError(f"port {port} is taken on this machine; choose another: torchrun --master-port") from None
        raise ValueError(f"another process of this work is gone ({reason[:120]}); the same command goes on") from None
    finally:
        # NCCL's groups end only together: one process that fails would wait here for the others, and never tell why.
        if dist.is_initialized() and (ended or kind != "cuda"):
            dist.destroy_process_group()
