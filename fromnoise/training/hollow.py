"""What an optimizer step holds and does, counted on tensors without numbers: any size, in seconds, on any machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fromnoise.diffusion.path import cubics
from fromnoise.nn.position import turns_of
from fromnoise.training.ema import Ema
from fromnoise.training.optim import Optimizer
from fromnoise.training.parallel import SINGLE, Parallel
from fromnoise.training.run import AdamW, Muon
from fromnoise.training.step import accumulate_gradients, gradient_norm
from fromnoise.training.trainee import Model, Sample

KEPT = (turns_of, cubics)  # functions that keep their tensors, and would give hollow ones to those who come after
PARTS = 2  # of a batch that are gone through: the second begins with gradients, and so do all after it


class Counted(NamedTuple):
    """Of an optimizer step."""

    activations: int
    """Bytes of all that lives besides weights, their average, moments and gradients, at the moment when most does."""
    gradients: int
    """Bytes of the gradients at that moment: all of them, where a batch has several parts."""
    kernels: int
    """Operations that compute something."""
    traffic: int
    """Bytes that they read and write."""


@contextmanager
def hollow(*modules: nn.Module) -> Iterator[None]:
    """Inside, tensors that are made have shapes and types, but no numbers and no memory; so have those of `modules`.

    Everything runs as it would, and computes nothing. Afterwards the modules are what they were; those built inside are
    of use inside only.
    """
    own = [(part, name, value) for module in modules for part in module.modules() for name, value in _tensors(part)]
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            for part, name, value in own:
                empty = torch.empty(value.shape, dtype=value.dtype)
                setattr(part, name, nn.Parameter(empty) if isinstance(value, nn.Parameter) else empty)
            yield
    finally:
        for part, name, value in own:
            setattr(part, name, value)
        for function in KEPT:
            function.cache_clear()


def _tensors(part: nn.Module) -> list[tuple[str, Tensor]]:
    return [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]


def of_rows(sample: Any, rows: int) -> Any:
    """`sample` with as many `rows`, whatever its own are; only shapes are looked at. Inside `hollow`."""
    size = sample.size

    def widened(value: Any) -> Any:
        per_row = isinstance(value, Tensor) and value.ndim and len(value) == size
        return torch.empty(rows, *value.shape[1:], dtype=value.dtype, device=value.device) if per_row else value

    return tree_map(widened, sample)


def count(
    model: Model, sample: Sample, batch: int, accumulate: int, optimizer: AdamW | Muon, dtype: torch.dtype | None
) -> Counted:
    """An eager step of `batch` samples like those of `sample`, in `accumulate` parts, on a hollow `model`.

    dtype: what autocast runs matrix products in; None leaves them as they are.
    """
    return go_through(State.of(model, optimizer), sample, batch, accumulate, dtype, Living(model))


class State(NamedTuple):
    """A hollow model with all that a training holds of it."""

    model: Model
    optimizer: Optimizer
    ema: Ema
    parallel: Parallel

    @classmethod
    def of(cls, model: Model, optimizer: AdamW | Muon, parallel: Parallel = SINGLE) -> State:
        """Of a placed `model`, after a first update, which makes the moments that live on."""
        state = cls(model, Optimizer(model, optimizer, parallel), Ema(model, 1.0, parallel), parallel)
        for p in model.parameters():
            p.grad = torch.empty_like(p)
        state.update()
        return state

    def update(self) -> None:
        """What a step does with its gradients."""
        gradient_norm(self.model, self.parallel)  # which is small enough, as a rule
        self.optimizer.step(1.0)
        self.model.zero_grad()
        self.ema.update(0)


def go_through(
    state: State, sample: Sample, batch: int, accumulate: int, dtype: torch.dtype | None, living: Living
) -> Counted:
    """The step of `count`, seen by `living`; of several processes that of one, whose own are `batch` samples."""
    parts = min(accumulate, PARTS)
    wide = of_rows(sample, parts * (batch // accumulate))
    learner = state.parallel.learner(state.model, lambda: wide, dtype)
    with living:
        accumulate_gradients(learner, wide, parts, dtype, learner.synced)
        living.learned(accumulate / parts)
        state.update()
    return Counted(living.most - living.gradients, living.gradients, living.kernels, living.traffic)


class Living(TorchDispatchMode):
    """Bytes of tensors that were made inside and live; what is computed, read and written."""

    def __init__(self, model: nn.Module, held: Callable[[Tensor], Tensor] = SINGLE.held):
        """held: what of a gradient is here."""
        super().__init__()
        self.model, self.held = model, held
        self.now = self.most = 0
        self.grown = self.gradients = 0  # bytes of gradients: now, and at the moment when most lived
        self.kernels = self.traffic = 0
        self.known: dict[int, int] = {}  # bytes of each storage
        self.with_gradient: set[Tensor] = set()

    def learned(self, times: float) -> None:
        """Take what has been seen so far so many times: there are as many times as many parts of a batch."""
        self.kernels, self.traffic = int(times * self.kernels), int(times * self.traffic)

    def __enter__(self) -> Living:
        self.hooks = [p.register_post_accumulate_grad_hook(self._grow) for p in self.model.parameters()]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        new = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
        if not func.is_view:
            self.kernels += 1
            self.traffic += sum(x.nbytes for x in (*given, *new))
        old = {id(x.untyped_storage()) for x in given}
        for x in new:
            if id(x.untyped_storage()) not in old:  # a view, or what is changed in place, is no new one
                self._see(x.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self.known:
            self._hold(storage, storage.nbytes())
            weakref.finalize(storage, self._forget, id(storage))

    def _hold(self, storage: torch.UntypedStorage, more: int) -> None:
        """`storage` holds so many bytes more than before."""
        key = id(storage)
        self.known[key] = self.known.get(key, 0) + more
        self.now += more
        if self.now > self.most:
            self._peak()

    def _peak(self) -> None:
        """It is now that most lives."""
        self.most, self.gradients = self.now, self.grown

    def _forget(self, key: int) -> None:
        self.now -= self.known.pop(key)

    def _grow(self, parameter: Tensor) -> None:
        grad = parameter.grad
        assert grad is not None, "who calls has made one"
        self.grown += self.held(grad).nbytes if parameter not in self.with_gradient else 0
        self.with_gradient.add(parameter)
