"""What each of several processes holds in a step, and what all tell each other: counted on hollow models.

The package's own FSDP2, HSDP and Muon share out a model without numbers among processes of which only the first is
there, and what they gather, free and send is seen as it happens. DistributedDataParallel cannot be asked so, as it
looks into tensors: its sum of the gradients, and the buckets that it is made in, are reckoned.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fromnoise.core.device import autocast
from fromnoise.core.ranks import Together
from fromnoise.core.recompute import recompute
from fromnoise.planning.counts import Subject
from fromnoise.planning.place import Crew
from fromnoise.training.estimate import BYTES, Resident
from fromnoise.training.hollow import Counted, Living, State, go_through, of_rows
from fromnoise.training.parallel import SINGLE, Learner, Parallel, Replicated, split
from fromnoise.training.run import TrainingBase

BUCKET = 25 * 2**20  # bytes of gradients that DistributedDataParallel sums at once
GATHER, SCATTER, SUM, EXCHANGE = KINDS = "all-gather", "reduce-scatter", "all-reduce", "all-to-all"
HOP, NETWORK_HOP = (
    3.4e-6,
    14e-6,
)  # seconds from one to the next by NVLink and by a network, as NCCL's tuning.cc has them


class Message(NamedTuple):
    """What some processes tell each other in a step, all of one kind."""

    kind: str
    size: int
    """How many processes these are."""
    machines: int
    """On how many machines."""
    update: bool
    """Whether nothing is computed meanwhile: it comes with the update of the weights."""
    count: int
    bytes: int
    """Of all that is gathered or summed, whole; in an exchange of each with each, of what one process gives or gets."""

    @property
    def sent(self) -> int:
        """Bytes that each process sends, and as many that it receives, around a ring."""
        return int((2 if self.kind == SUM else 1) * (self.size - 1) / self.size * self.bytes)

    def seconds(self, crew: Crew) -> float:
        """That they take. Rings of a machine's processes leave it by the network of each of them at once; a sum takes a
        tree between machines, which is sooner around."""
        here = self.size // self.machines
        rate = crew.link if self.machines == 1 else crew.network * here
        rate = min(rate, crew.link) if here > 1 else rate
        if self.kind == SUM:
            hops = 2 * ((here - 1) * HOP + math.log2(self.machines) * NETWORK_HOP)
        else:
            hops = (self.size - self.machines) * HOP + (self.machines - 1) * NETWORK_HOP
        return self.sent / rate + self.count * hops


class Part(NamedTuple):
    """What is one process's: of the first, which has as much as any other."""

    resident: Resident
    counted: Counted
    """Of its own samples; `activations` less what is `gathered`."""
    gathered: int
    """Bytes, at the moment when most lives, of weights and gradients that are whole, or on their way."""
    scattered: int
    """Bytes of the largest gradients that are summed and shared out at once, which gloo copies first."""
    looked: int
    """Bytes of weights that are whole, at most, while held-out pictures are looked at."""
    messages: list[Message]
    first: int
    """Bytes of a checkpoint that the first of several copies, and writes while it goes on; one alone copies nothing."""
    others: int
    """Bytes that each other one writes, at most."""
    split: bool
    """Whether it holds a share of the weights alone."""


@contextmanager
def pretended(training: TrainingBase, crew: Crew) -> Iterator[Parallel]:
    """How `crew` trains together. Inside, this process is the first of it for torch.distributed; the others are not
    there, and whatever is gathered from them is no number."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if crew.processes == 1:
        yield SINGLE
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=crew.processes)
    try:
        parallel = split(Together(dist.group.WORLD), training.model_copy(update={"device": "cpu"}), crew.here)
        yield Copied(parallel.ranks) if isinstance(parallel, Replicated) else parallel
    finally:
        dist.destroy_process_group()


def part_of_one(
    subject: Subject, training: TrainingBase, parallel: Parallel, crew: Crew, dtype: torch.dtype | None
) -> Part:
    """What one process of `crew` holds and tells in a step; the model is placed as `parallel` does. Inside `pretended`,
    which gives that, and within it `hollow`.

    dtype: what autocast runs matrix products in.
    """
    model, whole = subject.model, sum(p.numel() for p in subject.model.parameters()) * BYTES
    parallel.place(model, torch.device("cpu"))
    recompute(model.blocks(), training.recompute)
    state = State.of(model, training.optimizer, parallel)
    seen = Exchanging(model, parallel, crew)
    rows = training.batch // crew.processes
    counted = go_through(state, subject.sample, rows, training.accumulate, dtype, seen)
    copied = isinstance(parallel, Copied)
    sums = [Message(SUM, crew.processes, crew.machines, False, math.ceil(whole / BUCKET), whole)] if copied else []
    gathered = whole if copied else seen.gathered  # a copy has its gradients once more, in buckets
    counted = counted._replace(activations=counted.activations - seen.gathered)

    moments, muon = state.optimizer.tensors(), state.optimizer.muon
    own = muon.tensors() if muon else {}
    momentum = sum(one.nbytes for one in own.values())
    rest = sum(parallel.held(one).nbytes for name, one in moments.items() if name not in own and one.ndim)
    written = sum(one.nbytes for one, _ in parallel.written(moments, own).values())
    return Part(
        Resident(
            sum(parallel.held(p).nbytes for p in model.parameters()),
            sum(parallel.held(p).nbytes for p in state.ema.average),
            rest + momentum,
        ),
        counted,
        gathered,
        seen.scattered,
        0 if copied else gathered_to_look(subject, parallel, crew, dtype),
        [*sums, *seen.messages()],
        2 * whole + written,
        momentum if copied else written,
        not copied,
    )


def gathered_to_look(subject: Subject, parallel: Parallel, crew: Crew, dtype: torch.dtype | None) -> int:
    """Bytes of weights that are whole, at most, in a forward of the placed model without gradients."""
    model, sample = subject
    seeing = Exchanging(model, parallel, crew)
    with seeing as seen, torch.no_grad(), parallel.looking(model), autocast(model.device, dtype):
        model.loss(*of_rows(sample, 1))
    return seen.gathered


class Copied(Replicated):
    """A copy in each process, whose gradients nobody sums."""

    def place(self, model: Any, device: torch.device) -> None:
        """It is where it is."""

    def learner(self, model: Any, sample: Any, dtype: torch.dtype | None) -> Learner:
        return SINGLE.learner(model, sample, dtype)


class Exchanging(Living):
    """What `Living` sees, and what is gathered and sent."""

    def __init__(self, model: Any, parallel: Parallel, crew: Crew):
        super().__init__(model, parallel.held)
        self.crew = crew
        self.shared: set[int] = set()  # storages of what FSDP gathers, and sums
        self.gathered = self.scattered = 0
        self.told: dict[tuple[str, int, int, bool], tuple[int, int]] = {}
        self.update = False

    def __enter__(self) -> Exchanging:
        resize = self.resize = torch.UntypedStorage.resize_

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            if id(storage) not in self.known:  # it is from before: what it held then does not count
                self.known[id(storage)] = 0
                weakref.finalize(storage, self._forget, id(storage))
            self._hold(storage, size - storage.nbytes())
            return resize(storage, size)

        # FSDP frees by it what it gathered, which is no operation and would not be seen.
        torch.UntypedStorage.resize_ = resized  # type: ignore[assignment,method-assign]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.UntypedStorage.resize_ = self.resize

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.distributed.tensor import DTensor

        if DTensor in types:
            return NotImplemented  # it asks again, for what is here
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if func.namespace == "fsdp":
            self.shared |= {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if func.namespace in ("c10d", "_c10d_functional"):
            self._tell(func, args, made)
        return made

    def _peak(self) -> None:
        super()._peak()
        self.gathered = sum(self.known.get(key, 0) for key in self.shared)

    def _tell(self, func: Any, args: Any, made: Any) -> None:
        """Note a message that is sent."""
        name = func.__name__.replace("_", "")
        kind = next((one for one in KINDS if one.replace("-", "") in name), None)
        if kind is None:
            return  # to wait for one is none
        ranks = ranks_of(args)
        parts = [sum(x.nbytes for x in tree_leaves(one) if isinstance(x, Tensor)) for one in (*args, made)]
        key = kind, len(ranks), len({rank // self.crew.here for rank in ranks}), self.update
        count, size = self.told.get(key, (0, 0))
        self.told[key] = count + 1, size + max(parts)
        self.scattered = max(self.scattered, max(parts) if kind == SCATTER else 0)

    def learned(self, times: float) -> None:
        """Weights are gathered and gradients shared out for each part of a batch; copies are summed with the last."""
        super().learned(times)
        for key, (count, size) in self.told.items():
            if key[0] != SUM:
                self.told[key] = int(times * count), int(times * size)
        self.update = True

    def messages(self) -> list[Message]:
        """What was told, the most first."""
        told = [Message(*key, *said) for key, said in self.told.items()]
        return sorted(told, key=lambda one: -one.sent)


def ranks_of(args: Any) -> list[int]:
    """The processes that a collective operation is of."""
    import torch.distributed as dist

    for one in args:
        if isinstance(one, str) and one not in ("sum", "avg", "min", "max"):
            return dist.get_process_group_ranks(dist.distributed_c10d._resolve_process_group(one))  # type: ignore[arg-type]
        if isinstance(one, torch.ScriptObject):
            with suppress(RuntimeError):  # a way to reduce is no group
                return dist.get_process_group_ranks(dist.ProcessGroup.unbox(one))
    raise AssertionError("a collective has a group")
