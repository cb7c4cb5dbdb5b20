"""Who writes checkpoints: one process, at once; or several, each its part, while they train on."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from fromnoise.core.files import save_tensors
from fromnoise.training import checkpoint
from fromnoise.training.checkpoint import State
from fromnoise.training.parallel import Parallel


class Saver(ABC):
    """Writes checkpoints into `root`, and keeps the last `keep`."""

    def __init__(self, root: Path, keep: int):
        self.root, self.keep = root, keep

    @abstractmethod
    def save(self, state: State) -> Path:
        """Write the checkpoint of `state`, or begin to; where it is to lie. Errors as of `checkpoint.save`."""

    @abstractmethod
    def close(self) -> None:
        """Wait until all is written. Errors as of `save`."""


class AtOnce(Saver):
    """In one process."""

    def save(self, state: State) -> Path:
        return checkpoint.save(self.root, state, self.keep)

    def close(self) -> None: ...


class Behind(Saver):
    """In several: each copies to the CPU what it is to write, and a thread writes it. The thread of the first one gives
    the checkpoint its name when all have told theirs that they are done; by a group of their own, so that no step waits
    for it. One checkpoint is written at a time."""

    def __init__(self, root: Path, keep: int, parallel: Parallel):
        super().__init__(root, keep)
        self.parallel, self.apart = parallel, parallel.ranks.apart()
        self.thread = ThreadPoolExecutor(1, "saving")
        self.writing: Future[None] | None = None

    def save(self, state: State) -> Path:
        self._wait()
        model, ema, optimizer, progress = state
        tensors, weights = optimizer.tensors(), self.parallel.copied(model, ema)
        own = optimizer.muon.tensors() if optimizer.muon else {}
        parts = self.parallel.written(tensors, own)
        parts = {name: (tensor.to("cpu", copy=True), first) for name, (tensor, first) in parts.items()}
        progress = copy.deepcopy(progress)
        self.writing = self.thread.submit(self._write, weights, parts, progress)
        return self.root / checkpoint.name_of(progress.step)

    def close(self) -> None:
        try:
            self._wait()
        finally:
            self.thread.shutdown()

    def _wait(self) -> None:
        writing, self.writing = self.writing, None
        if writing:
            writing.result()

    def _write(
        self,
        weights: tuple[checkpoint.Model, checkpoint.Ema] | None,
        parts: dict[str, tuple[torch.Tensor, int]],
        progress: checkpoint.Progress,
    ) -> None:
        path = self.root / checkpoint.name_of(progress.step)
        partial = self.root / f".{path.name}.partial"
        rank, first = self.apart.rank, self.apart.first
        tensors = {name: tensor for name, (tensor, _) in parts.items()}
        firsts = {"firsts": json.dumps({name: row for name, (_, row) in parts.items()})}

        def begin() -> None:
            checkpoint.begin(partial)

        def write() -> None:
            if weights:
                checkpoint.save_weights(partial, *weights, progress.step)
            elif tensors:
                save_tensors(partial / f"optimizer-{rank:05d}.safetensors", tensors, firsts)

        def finish() -> None:
            save_tensors(partial / "optimizer.safetensors", tensors, checkpoint.told(partial, progress) | firsts)
            checkpoint.finish(partial, path, self.keep)

        for work, whose in ((begin, first), (write, True), (finish, first)):
            fault: object = None
            try:
                if whose:
                    work()
            except (OSError, ValueError) as error:
                fault = error
            failed = [rank for rank, (bad,) in enumerate(self.apart.every(fault is not None)) if bad]
            if failed:
                told = fault or f"process {failed[0]} could not write its part"
                raise ValueError(checkpoint.failed(partial, progress.step, told))


def saver_of(root: Path, keep: int, parallel: Parallel) -> Saver:
    """Who writes checkpoints where training is `parallel`."""
    return Behind(root, keep, parallel) if parallel.ranks.size > 1 else AtOnce(root, keep)
