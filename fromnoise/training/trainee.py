"""What the loop asks of what it trains: how it begins, what a step shows it, and how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fromnoise.core.ranks import Ranks
from fromnoise.core.types import Data
from fromnoise.pipeline.pipeline import Precision
from fromnoise.training.ema import Ema

Model = Any
"""An nn.Module with `loss(*sample)` (B,), `device`, `blocks()`, `compiled(wanted)` and `save(path, metadata)`: a
`Pipeline` or an `Autoencoder`."""


class Sample(Protocol):
    """What `loss` takes: a batch, and everything about it that is drawn by chance. A tuple."""

    @property
    def size(self) -> int: ...  # B
    def __iter__(self) -> Iterator[Any]: ...  # what `loss` takes
    def to(self, device: torch.device) -> Sample: ...  # from pinned memory the copy does not wait
    def pinned(self) -> Sample: ...  # in page-locked memory
    def rows(self, first: int, last: int) -> Sample: ...  # samples `first` to `last`, the last left out
    def about(self, row: int) -> str: ...  # what to tell of a sample at which the loss broke
    def suspects(self) -> dict[str, Tensor]: ...  # what was given of it, by name, (B, ...) each


class Validation(Protocol):
    """Fixed samples that are never trained on."""

    def losses(self, model: Model, ema: Ema, dtype: torch.dtype | None) -> dict[str, Any]: ...


class Previews(Protocol):
    """Pictures of the same things as training goes on."""

    def write(self, step: int, model: Model, ema: Ema, precision: Precision) -> None: ...


class Looks(NamedTuple):
    """What is done beside the steps, in forwards of one sample without gradients."""

    validation: int
    preview: int
    end: int
    """After the last step."""
    pictures: int
    """That a preview shows."""


class Trainee(ABC):
    """A kind of model in training, with its run and its data."""

    run: Any  # a `Run`, or what else has `training`
    data: Data
    say: Callable[[str], None]  # a line for the user that stays
    ranks: Ranks  # who train together

    @abstractmethod
    def build(self) -> Model:
        """A fresh model, on the CPU; where it `is_filled` when it is placed, weights may have shapes alone."""

    @abstractmethod
    def load(self, path: Path) -> Model:
        """The model in a checkpoint's file, as of `build`; ValueError, one line, where it cannot be read."""

    @abstractmethod
    def draw(self, model: Model, step: int, size: int) -> Sample:
        """The sample of an optimizer step, on the CPU: a pure function of the seed, `step` and `size`. Of its
        `size` rows this process gets its share."""

    @abstractmethod
    def trial(self, model: Model, size: int) -> Sample:
        """A sample to measure with, of `size` held-out pictures: none to train on is larger, so that what fits now
        always fits."""

    @abstractmethod
    def rehearse(self, model: Model) -> None:
        """Find what would stop the training later; ValueError, one line."""

    @abstractmethod
    def validation(self, model: Model) -> Validation:
        """What judges the weights now and then."""

    @abstractmethod
    def previews(self, directory: Path) -> Previews:
        """What shows them, in PNGs in `directory`."""

    @abstractmethod
    def looks(self) -> Looks:
        """What validation, previews and the end cost."""

    @abstractmethod
    def finish(self, directory: Path, device: torch.device) -> None:
        """What is left to do with the weights in `directory` once the last step is saved, by one process."""
