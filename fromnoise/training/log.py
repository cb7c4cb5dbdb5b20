"""What a training tells: one live line, and metrics.jsonl, which a kill never leaves wrong."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fromnoise.core.files import read_lines, write_text
from fromnoise.core.line import Line
from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.training.checkpoint import Progress
from fromnoise.training.reference import Reference
from fromnoise.training.run import Training

T = TypeVar("T")
KINDS = (
    ("loss", "gradient_norm", "learning_rate", "images_per_second", "waiting_for_data", "step_seconds", "seconds"),
    ("validation_raw", "validation_ema"),
)
"""Numbers that a line of training tells, and one of validation; the first of each tells what it is."""


class Metrics:
    """metrics.jsonl: one JSON object a line, each with a "step". Lines are only added, but on resuming, those of steps
    after the checkpoint are dropped, since these steps are done again."""

    def __init__(self, path: Path, step: int, tensorboard: bool):
        self.path = path
        # Of a run without a checkpoint nothing is kept, the line of step 0 neither: it is written again.
        kept = [line for line in _lines(path) if _step(line) <= step] if step else []
        write_text(path, "".join(f"{line}\n" for line in kept))
        self.board = _board(path.parent, step) if tensorboard else None
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115, closed by `close`

    def write(self, step: int, record: dict[str, Any]) -> None:
        """Add one line. ValueError in one line when the disk is full."""
        line = json.dumps({"step": step, **record}) + "\n"
        try:
            whole = self.file.write(line.encode()) == len(line.encode())
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror}; checkpoints are intact") from None
        if not whole:
            raise ValueError(f"cannot write {self.path}: no space for a whole line; checkpoints are intact")
        if self.board:
            for key, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(key, value, step)

    def sync(self) -> None:
        """Make every line survive a power cut: before a checkpoint that counts on them."""
        os.fsync(self.file.fileno())
        if self.board:
            self.board.flush()

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.board:
            self.board.close()


class Unwritten:
    """The metrics of a process for which the first one writes them."""

    def write(self, step: int, record: dict[str, Any]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none where there is no file.

    Raises:
        ValueError: one line, when one is no JSON object, or lacks a number that all lines of its kind tell.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        wanted = ["step", *(name for kind in KINDS if kind[0] in line for name in kind)]
        for name in wanted:
            if not isinstance(line.get(name), int | float):
                raise ValueError(f"{path} is damaged: line {number}: {name} is {line.get(name)!r}, no number")
    return lines


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _step(line: str) -> float:
    """The step of a line; infinite for what is none, as half a line, the last thing written before a kill."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _board(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError('training.tensorboard is on; it needs: pip install "fromnoise[tensorboard]"') from None
    return SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)


@dataclass
class Meter:
    """Speed since the last `reset`: pictures, seconds of steps, and seconds of them waiting for data, at most."""

    flops: float | None = None  # of one step, where the device's peak is known
    peak: float | None = None  # FLOP/s
    busy: Callable[[], bool] = lambda: False  # whether the device has other work meanwhile
    steps: int = 0
    pictures: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    clock: float = 0.0

    def timed(self, samples: Iterator[T]) -> Iterator[T]:
        """The same samples; each begins a step, and the time it takes to come is waiting."""
        while True:
            self.clock = time.perf_counter()
            try:
                sample = next(samples)
            except StopIteration:
                return
            waited = time.perf_counter() - self.clock
            self.waited += 0.0 if self.busy() else waited
            yield sample

    def end(self, pictures: int) -> None:
        """The step that began last is done; what comes before the next one does not count."""
        self.steps += 1
        self.pictures += pictures
        self.seconds += time.perf_counter() - self.clock

    def reset(self) -> dict[str, float]:
        """What was measured since the last time: images/s, shares of waiting and of the peak; seconds of a step."""
        seconds = max(self.seconds, 1e-9)
        speed = {
            "images_per_second": self.pictures / seconds,
            "waiting_for_data": self.waited / seconds,
            "step_seconds": seconds / self.steps,
        }
        if self.flops and self.peak:
            speed["flop_utilisation"] = self.flops * self.steps / seconds / self.peak
        self.steps, self.pictures, self.seconds, self.waited = 0, 0, 0.0, 0.0
        return speed


class Report:
    """What is told of every step: to metrics.jsonl, to the user, and to `progress`."""

    def __init__(
        self,
        directory: Path,
        live: Live,
        meter: Meter,
        progress: Progress,
        training: Training,
        batch: int,
        reference: Reference | None,
        ranks: Ranks = ALONE,
    ):
        self.live, self.meter, self.progress, self.training, self.batch = live, meter, progress, training, batch
        self.reference = reference
        file = directory / "metrics.jsonl"
        self.metrics = Metrics(file, progress.step, training.tensorboard) if ranks.first else Unwritten()
        self.began = time.perf_counter() - progress.seconds

    def step(self, norm: float, rate: float) -> None:
        """One more step is done, at this learning rate. norm: of the gradient, where the step is told of."""
        progress, training = self.progress, self.training
        self.meter.end(self.batch)
        progress.step += 1
        progress.seconds = time.perf_counter() - self.began
        if training.due(progress.step, training.log_every):
            mean = math.fsum(progress.losses) / len(progress.losses)
            told = {"loss": mean, "gradient_norm": norm, "learning_rate": rate}
            speed = self.meter.reset()
            self.metrics.write(progress.step, told | speed | {"seconds": progress.seconds})
            self.live.show(progress.step, mean, speed)
            if self.reference:
                self.reference.loss(progress.step, len(progress.losses), mean)
            progress.losses.clear()

    def validated(self, losses: dict[str, Any]) -> None:
        """These are the validation losses after the steps that are done."""
        self.metrics.write(self.progress.step, losses)
        if self.reference:
            self.reference.validated(self.progress.step, losses)


class Live:
    """The line that a user watches: rewritten in place on a terminal, printed now and then elsewhere."""

    def __init__(self, steps: int):
        self.steps, self.line, self.began = steps, Line(), False

    def show(self, step: int, loss: float, speed: dict[str, float]) -> None:
        """Tell of the steps since the last line: on a terminal of all, elsewhere of the first, the last, and now and
        then."""
        if self.line.terminal or self.line.due or not self.began or step == self.steps:
            self.line.show(status(step, self.steps, loss, speed))
            self.began = True

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.line.say(line)


class Unseen(Live):
    """The line of a process that nobody watches."""

    def show(self, step: int, loss: float, speed: dict[str, float]) -> None: ...
    def say(self, line: str) -> None: ...


def status(step: int, steps: int, loss: float, speed: dict[str, float]) -> str:
    """One line: step 20/2000  loss 0.0213  182 images/s  data 1%  left 4:10."""
    parts = [
        f"step {step}/{steps}",
        f"loss {loss:.4f}",
        f"{speed['images_per_second']:.0f} images/s",
        f"waiting for data {speed['waiting_for_data']:.0%}",
    ]
    if "flop_utilisation" in speed:
        parts.append(f"{speed['flop_utilisation']:.0%} of peak FLOP/s")
    return "  ".join([*parts, f"left {duration((steps - step) * speed['step_seconds'])}"])


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
