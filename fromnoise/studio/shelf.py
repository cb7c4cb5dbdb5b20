"""The models that a studio draws with: those named when it was started, and the runs in its folder."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.core.config import hint, read_mapping
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.place import config_at, weights

if TYPE_CHECKING:
    from fromnoise.plots.subject import Subject

HELD = 4  # models in memory at once


class Shelf:
    """Models by name, loaded when they are first asked for, and anew when their weights have changed."""

    def __init__(self, given: Mapping[str, Path], runs: Path, device: str = "auto"):
        self.given = dict(given)
        self.runs = runs
        self.device = device
        self.held: OrderedDict[tuple[Path, int], Subject] = OrderedDict()
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        """All that can be drawn with: first what was given, then the runs in the folder that have a checkpoint."""
        found = [path.name for path in runs_in(self.runs) if draws(self.runs, path)]
        return [*self.given, *(name for name in found if name not in self.given)]

    def place(self, name: str) -> Path:
        """Where the model called `name` is.

        Raises:
            ValueError: one line, when there is none, it lies outside the folder of runs, or it has no weights yet; or
                when it is no text, as others than the page may send.
        """
        if not isinstance(name, str):
            raise ValueError(f"model: given {shown(name)}; allowed: {', '.join(self.names())}")
        if name in self.given:
            return self.given[name]
        place = inside(self.runs, name)
        if not place.exists():
            raise ValueError(f"there is no run {shown(name)} (any more); {hint(name, self.names())}")
        inside(self.runs, weights(place))  # nor may a link lead out of it
        return place

    def config(self, name: str) -> ModelConfig:
        """The config of the model called `name`, which draws as is usual for it; errors as in `subject`."""
        return config_at(self.place(name))

    def subject(self, name: str) -> Subject:
        """The model called `name`.

        Raises:
            ValueError: one line, as `place`, or when what is there is no model that can be read.
        """
        from fromnoise.plots.subject import find  # with torch

        place = self.place(name)
        file = weights(place)
        with self.lock:
            key = (file, file.stat().st_mtime_ns)
            if key not in self.held:
                self.held[key] = find(place, device=self.device)
            self.held.move_to_end(key)
            while len(self.held) > HELD:
                self.held.popitem(last=False)
            subject = self.held[key]
        subject.pipeline.draw_as(config_at(place).sampling)  # as a sweep has chosen meanwhile, or no longer has
        return subject


def runs_in(folder: Path) -> list[Path]:
    """The directories of runs in `folder`, those changed last first; less links to what lies outside."""
    changed: dict[Path, float] = {}
    for record in folder.glob("*/run.yaml"):
        with suppress(OSError, ValueError):  # a run may be deleted while they are listed
            changed[inside(folder, record.parent)] = record.stat().st_mtime
    return sorted(changed, key=changed.__getitem__, reverse=True)


def draws(folder: Path, run: Path) -> bool:
    """Whether this run in `folder` is one of a model that draws: that has weights there, a record that can be read, and
    is no VAE."""
    try:
        inside(folder, weights(run))
        return read_mapping(run / "run.yaml").get("type") != "vae"
    except ValueError:
        return False


def inside(folder: Path, name: str | Path) -> Path:
    """What `name` stands for in `folder`.

    Raises:
        ValueError: one line, when it is no path, or leads out of the folder.
    """
    place = Path(name) if isinstance(name, Path) else folder / name
    try:
        within = place.resolve().relative_to(folder.resolve())
    except (ValueError, OSError, RuntimeError):  # before Python 3.13 a link to itself is a RuntimeError
        within = Path()
    if within == Path():
        raise ValueError(f"{shown(str(name))} is outside the folder of runs, {folder}; allowed: names of runs in it")
    return place


def shown(given: object) -> str:
    """What somebody typed or sent, short and in one line."""
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:56]}...'"
