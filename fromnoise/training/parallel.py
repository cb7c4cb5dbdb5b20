"""How one model is trained by several processes: each with a whole copy of it, or with a share of its weights.

One process has the model as it is. With `ddp` each has a copy, and gradients are averaged while they are computed
(DistributedDataParallel). With `fsdp` each holds a share of the rows of every weight, of its gradient, moments and
average, and a block's weights are gathered only while it computes (FSDP2, `fully_shard`). With `hsdp` shares are within
a machine, and machines hold copies.

Weights stay float32 in all of them, and autocast chooses the type of products: FSDP's own mixed precision would round
the time, too.

Legend: n matrices of this process, N of all; R rows, C columns.
"""

from __future__ import annotations

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.conditioning.frozen import FrozenTextConditioner
from fromnoise.core.device import autocast, pick
from fromnoise.core.ranks import ALONE, Ranks, Together
from fromnoise.training.run import TrainingBase

if TYPE_CHECKING:
    from fromnoise.training.ema import Ema
    from fromnoise.training.trainee import Model, Sample


class Learner(NamedTuple):
    """A model as the optimizer's steps see it."""

    device: torch.device
    loss: Callable[..., Tensor]
    """Of the model; what is computed from it has gradients of all processes."""
    synced: Callable[[bool], AbstractContextManager[object]]
    """Inside, gradients are averaged over all processes where True is given, and else added up in each."""


class Parallel(ABC):
    """A way to train together."""

    ranks: Ranks
    """All processes."""
    sharers: Ranks
    """Those that have one copy of the moments in common."""
    largest_kept: int | None = None
    """Of `keep_freed_memory`."""

    @abstractmethod
    def place(self, model: Model, device: torch.device) -> None:
        """Move a model from the CPU to where it is trained, and fill it where it `is_filled`. All have to call."""

    @abstractmethod
    def learner(self, model: Model, sample: Callable[[], Sample], dtype: torch.dtype | None) -> Learner:
        """The placed model, to be trained on samples like what `sample` gives, in autocast to `dtype`."""

    @contextmanager
    def looking(self, model: Model) -> Iterator[None]:
        """Inside, the placed model can be asked without gradients, in whatever way, by all of them equally often."""
        yield

    @torch.no_grad()
    def copied(self, model: Model, ema: Ema) -> tuple[Model, Ema] | None:
        """Copies of the placed model and its average, whole, on the CPU, for the first process; None for the others.
        All have to call."""
        weights = iter([self.to_first(p) for p in model.parameters()])
        average = [self.to_first(p) for p in ema.average]
        if not self.ranks.first:
            return None
        other, mean = twin(self.unplaced(model), lambda p: next(weights)), copy.copy(ema)
        mean.weights, mean.average = list(other.parameters()), average
        mean.model, mean.parallel = other, SINGLE
        return other, mean

    def to_first(self, tensor: Tensor) -> Tensor:
        """Of a weight, or what belongs to one, whole, on the CPU; for the others than the first process nothing."""
        return tensor.to("cpu", copy=True) if self.ranks.first else tensor.new_empty(0)

    def unplaced(self, model: Model) -> Model:
        """The placed model with weights that are no shares, of whatever numbers."""
        return model

    def held(self, tensor: Tensor) -> Tensor:
        """The rows of `tensor` (a weight, or what belongs to one) that are here."""
        return tensor

    def rows(self, tensor: Tensor) -> tuple[int, int]:
        """Which these are: the first, and the last, which is left out."""
        return 0, tensor.shape[0]

    def like(self, weight: Tensor, values: Tensor) -> Tensor:
        """A tensor that is held as `weight` is, with these `values`, of all its rows."""
        return values.to(weight.device, copy=True)  # else it would hold on to a checkpoint's file, as long as it lives

    def collected(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Of N gradients those that are this process's share, whole."""
        first, last = self.sharers.share(len(gradients))
        return list(gradients[first:last])

    def norm(self, here: Tensor) -> Tensor:
        """The norm of what belongs to all weights, (), of that of what is here."""
        return here

    def written(self, tensors: dict[str, Tensor], own: Iterable[str]) -> dict[str, tuple[Tensor, int]]:
        """What of `tensors` this process is to write, and with which row each begins; nobody else has those of the
        names in `own`."""
        return {name: (tensor, 0) for name, tensor in tensors.items()}


class Single(Parallel):
    """One process."""

    ranks = sharers = ALONE

    def place(self, model: Model, device: torch.device) -> None:
        model.to(device)

    def learner(self, model: Model, sample: Callable[[], Sample], dtype: torch.dtype | None) -> Learner:
        return Learner(model.device, model.loss, lambda synced: nullcontext())


SINGLE = Single()


class Loss(nn.Module):
    """The loss of a model as a forward, which is what DistributedDataParallel watches."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, *sample: Any) -> Tensor:
        return self.model.loss(*sample)  # (B,)


class Replicated(Parallel):
    """A copy of the model in each process."""

    def __init__(self, ranks: Ranks):
        self.ranks = self.sharers = ranks

    def place(self, model: Model, device: torch.device) -> None:
        model.to(device)

    def learner(self, model: Model, sample: Callable[[], Sample], dtype: torch.dtype | None) -> Learner:
        """After a first step, which does not count: by it gradients are sorted into the buckets that they are summed
        in, and the order of a sum decides its last bits. A training that goes on has thus the buckets that it had."""
        late = getattr(model, "discriminator", None) is not None  # it has no gradients until it begins
        ddp = nn.parallel.DistributedDataParallel(Loss(model), find_unused_parameters=late)
        ddp.broadcast_buffers = False  # what is frozen is the same everywhere
        with autocast(model.device, dtype):
            loss = ddp(*sample().to(model.device)).mean()  # ()
        loss.backward()
        model.zero_grad()
        return Learner(model.device, ddp, lambda synced: nullcontext() if synced else ddp.no_sync())

    def written(self, tensors: dict[str, Tensor], own: Iterable[str]) -> dict[str, tuple[Tensor, int]]:
        mine = tensors if self.ranks.first else own
        return {name: (tensors[name], 0) for name in mine}


class Sharded(Parallel):
    """A share of the rows of every weight in each process of a machine (`hsdp`), or of all of them (`fsdp`)."""

    sharers: Together
    largest_kept = 2**23
    """What is gathered and freed block by block leaves holes between activations, into which nothing large fits: a
    process of 42M parameters grew by 1.3 GiB in place of 1.1 where twice as much was kept, in a tenth less time."""

    def __init__(self, ranks: Ranks, device: torch.device, within: int):
        from torch.distributed.device_mesh import init_device_mesh

        if ranks.size % within:
            raise ValueError(f"{ranks.size} processes, {within} on this machine; hsdp takes as many on each")
        self.ranks = ranks
        copies = ranks.size // within
        shape, names = ((copies, within), ("copy", "share")) if copies > 1 else ((within,), ("share",))
        self.mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
        self.sharers = Together(self.mesh.get_group("share"))
        self.copy = self.mesh.get_local_rank("copy") if copies > 1 else 0

    def place(self, model: Model, device: torch.device) -> None:
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        self.hollow = twin(model, lambda p: torch.empty_like(p, device="meta"))  # FSDP makes another class of it
        whole = [p.detach() for p in model.parameters()]
        for block in model.blocks():
            fully_shard(block, mesh=self.mesh)
        # Else what is outside of blocks would stay whole after a forward that no backward follows.
        fully_shard(model, mesh=self.mesh, reshard_after_forward=True)
        self._fill(model, whole, device)
        for part in model.modules():
            if isinstance(part, FrozenTextConditioner):  # whose encoders FSDP does not know of
                part.place(device)
        register_fsdp_forward_method(model, "loss")
        model._get_fsdp_state()._lazy_init()  # else what is asked first would be taken for the whole model
        for name, buffer in model.named_buffers():
            assert buffer.device.type == device.type, f"{name} is moved with the weights"

    @torch.no_grad()
    def _fill(self, model: Model, whole: Sequence[Tensor], device: torch.device) -> None:
        """Give the shared out weights the numbers of the first process's `whole` ones, of which only it need have any:
        eight processes of a machine that each begin with all of a large model would not fit into its main memory."""
        import torch.distributed as dist

        for part in model.modules():
            if any(p.is_meta for p in part.parameters(recurse=False)):
                part.to_empty(device=device, recurse=False)
        for p, one in zip(model.parameters(), whole, strict=True):
            sent = (
                one.to(device).contiguous()
                if self.ranks.first
                else torch.empty(one.shape, dtype=one.dtype, device=device)
            )
            dist.broadcast(sent, 0)
            self.held(p).copy_(sent[slice(*self.rows(p))])

    def learner(self, model: Model, sample: Callable[[], Sample], dtype: torch.dtype | None) -> Learner:
        def synced(wanted: bool) -> AbstractContextManager[object]:
            # Between machines alone: within one, gradients go to their shares at once, or they would be whole.
            model.set_requires_all_reduce(wanted)
            return nullcontext()

        return Learner(model.device, model.loss, synced)

    @contextmanager
    def looking(self, model: Model) -> Iterator[None]:
        """Weights outside of blocks are whole inside, as they are read in many ways; a block gathers its own."""
        model.set_reshard_after_forward(False, recurse=False)
        model.unshard()
        try:
            yield
        finally:
            model.set_reshard_after_forward(True, recurse=False)
            model.reshard()

    def to_first(self, tensor: Any) -> Tensor:
        return super().to_first(tensor.full_tensor())

    def unplaced(self, model: Model) -> Model:
        return self.hollow

    def held(self, tensor: Tensor) -> Tensor:
        return tensor.to_local()  # type: ignore[attr-defined]

    def rows(self, tensor: Tensor) -> tuple[int, int]:
        return self.sharers.share(tensor.shape[0])

    def like(self, weight: Any, values: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        first, last = self.rows(weight)
        own = values[first:last].to(weight.device)
        shape, stride = weight.shape, weight.stride()
        return DTensor.from_local(own, weight.device_mesh, weight.placements, shape=shape, stride=stride)

    def collected(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """In one message from each to each: gathered one by one, the matrices of an MMDiT of 4M parameters took as long
        as all else of an update."""
        import torch.distributed as dist

        ranks, everybody = self.sharers, range(self.sharers.size)
        owned = [gradients[slice(*ranks.share(len(gradients), rank))] for rank in everybody]
        own = owned[ranks.rank]  # n of them
        sent = torch.cat([self.held(g).flatten() for g in gradients])  # by who gets it
        sizes = [sum(self.held(g).numel() for g in theirs) for theirs in owned]
        parts = [[math.prod(g.shape[1:]) * len(range(*ranks.share(len(g), rank))) for g in own] for rank in everybody]
        got = sent.new_empty(sum(map(sum, parts)))  # by who sent it, and then by gradient
        dist.all_to_all_single(got, sent, [sum(some) for some in parts], sizes, group=ranks.group)
        pieces = got.split([size for some in parts for size in some])
        return [torch.cat(pieces[place :: len(own)]).view(g.shape) for place, g in enumerate(own)]

    def norm(self, here: Tensor) -> Tensor:
        import torch.distributed as dist

        squares = here.square()  # ()
        dist.all_reduce(squares, group=self.sharers.group)
        return squares.sqrt()

    def written(self, tensors: dict[str, Tensor], own: Iterable[str]) -> dict[str, tuple[Tensor, int]]:
        from torch.distributed.tensor import DTensor

        if self.copy:
            return {}
        parts = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
        alike = {name: (tensor, 0) for name, tensor in tensors.items() if name not in parts}
        mine = {name: (self.held(tensor), self.rows(tensor)[0]) for name, tensor in parts.items()}
        return {name: part for name, part in mine.items() if len(part[0])} | {
            name: part for name, part in alike.items() if self.ranks.first or name in own
        }


def is_filled(ranks: Ranks, training: TrainingBase) -> bool:
    """Whether this process's model has, once it is placed, the weights that the first one had."""
    return training.parallel != "ddp" and not ranks.first


def split(ranks: Ranks, training: TrainingBase, here: int | None = None) -> Parallel:
    """How these processes train, as `training.parallel` says. here: how many of them are on a machine; left out, what
    torchrun tells.

    Raises:
        ValueError: one line, when the batch does not come out even.
    """
    if ranks.size == 1:
        return SINGLE
    refuse_uneven(ranks.size, training)
    if training.parallel == "ddp":
        return Replicated(ranks)
    device = pick(training.device)
    if training.batch == 0 and device.type == "cuda":  # where it is found by what does not fit
        wanted = f"training.batch is 0 and training.parallel {training.parallel}"
        raise ValueError(f"{wanted}: all would wait for a process without room; allowed: a number, or ddp")
    here = here or int(os.environ["LOCAL_WORLD_SIZE"])
    return Sharded(ranks, ranks.device(device), here if training.parallel == "hsdp" else ranks.size)


def refuse_uneven(processes: int, training: TrainingBase) -> None:
    """Find that the batch comes out even; ValueError, one line, where it does not."""
    if training.batch % (processes * training.accumulate):
        raise ValueError(
            f"training.batch is {training.batch}; allowed for {processes} processes and training.accumulate "
            f"{training.accumulate}: multiples of {processes * training.accumulate}"
        )


def twin(module: Any, weight: Callable[[nn.Parameter], Tensor]) -> Any:
    """`module` again, with weights of its own, made of the old ones in their order; all else is the same objects."""
    made: dict[int, nn.Parameter] = {}

    def again(part: nn.Module) -> nn.Module:
        other = copy.copy(part)
        other.__dict__ |= {key: copy.copy(value) for key, value in vars(part).items() if isinstance(value, dict)}
        for p in part._parameters.values():
            if p is not None and id(p) not in made:
                made[id(p)] = nn.Parameter(weight(p), requires_grad=p.requires_grad)
        other._parameters = {name: p if p is None else made[id(p)] for name, p in part._parameters.items()}
        other._modules = {name: child if child is None else again(child) for name, child in part._modules.items()}
        return other

    return again(module)
